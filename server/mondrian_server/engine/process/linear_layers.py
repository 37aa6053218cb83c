"""Linear layers: on Linux's CPU, float32 ones are computed faster than mlx does it by itself."""

import sys
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from mondrian_server.engine.process.mlx_typed import evaluate, member, parameters, to_mlx, to_numpy


def speed_up_linear_layers(model: Any, *, apart: bool) -> None:
    """Change the float32 linear layers of a model where mlx 0.32 multiplies by the reference BLAS.

    That is what its wheels for Linux bring. Delete this when they bring another.

    Where rows are computed together, a row's result must not depend on its neighbours. The reference BLAS sums in one
    order whatever the number of rows, so it stays; but `x @ weight.T` with the weight as it is loaded makes it take dot
    products, which no compiler vectorises. With weights stored by input feature it adds multiples of columns, a third
    faster.

    `apart`: all layers outside the language half work for one row alone, on its pictures. Those are computed by numpy's
    BLAS, which sums in an order that depends on the shape, and is some twenty-five times as fast.
    """
    if mx.default_device().type != mx.DeviceType.cpu or sys.platform == "darwin":
        return
    together = {id(module) for _, module in (model.language_model if apart else model).named_modules()}
    for _, module in model.named_modules():
        if isinstance(module, nn.Linear) and all(array.dtype == mx.float32 for _, array in parameters(module)):
            if id(module) in together:
                _store_by_input(module)
            elif type(module) is nn.Linear:  # Nobody knows what a layer that is derived from it computes.
                module.__class__ = _NumpyLinear


def _store_by_input(module: Any) -> None:
    module.weight = member("mlx.core", "contiguous")(module.weight.T).T
    evaluate(module.weight)


class _NumpyLinear(nn.Linear):
    """A float32 linear layer that numpy computes.

    It computes its input and its output when it is called, not when they are needed, so mlx can neither compile nor
    differentiate what it stands in.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """Return x @ weight.T + bias in float32."""
        output = np.matmul(to_numpy(x.astype(mx.float32)), to_numpy(self.weight).T)
        if "bias" in self:
            output += to_numpy(self.bias)
        return to_mlx(output)
