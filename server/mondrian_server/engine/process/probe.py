"""The probe: computes something with MLX in a process of its own, and tells as JSON where that was."""

import json
import sys

import mlx.core as mx

from mondrian_server.engine.process.mlx_typed import evaluate, member


def main() -> None:
    """Compute, and write one object to stdout."""
    evaluate(mx.ones((8, 8)) @ mx.ones((8, 8)))
    told = member("mlx.core", "device_info")()
    kind = "gpu" if mx.default_device().type == mx.DeviceType.gpu else "cpu"
    memory_bytes = int(told.get("max_recommended_working_set_size", 0))
    sys.stdout.write(json.dumps({"kind": kind, "name": str(told.get("device_name", "")), "memory_bytes": memory_bytes}))


if __name__ == "__main__":
    main()
