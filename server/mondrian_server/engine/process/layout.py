"""Layout: on the CPU, weights lie in memory in the order in which its matrix product reads them fastest."""

from typing import Any

import mlx.core as mx

from mondrian_server.engine.process.mlx_typed import evaluate, member


def lay_out_for_cpu(model: Any) -> None:
    """Store the float32 weights of a model's linear layers by input feature.

    mlx 0.32 on Linux brings the reference BLAS. `x @ weight.T` with the weight as it is loaded makes that take dot
    products, which no compiler vectorises; with this layout it adds multiples of columns, a third faster. Either way a
    row's result is summed in one order whatever the number of rows, so that it does not depend on its neighbours. On
    the other back ends nothing changes. Delete this when mlx ships another BLAS.
    """
    if mx.default_device().type != mx.DeviceType.cpu:
        return
    linear = member("mlx.nn", "Linear")
    for _, module in model.named_modules():
        if isinstance(module, linear) and module.weight.dtype == mx.float32:
            module.weight = member("mlx.core", "contiguous")(module.weight.T).T
            evaluate(module.weight)
