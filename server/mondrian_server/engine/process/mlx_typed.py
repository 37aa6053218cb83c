"""mlx, typed: the calls of mlx and mlx-vlm whose own annotations leave types open, each under one that does not."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

_core = cast("Any", mx)


def evaluate(*arrays: mx.array) -> None:
    """Compute the arrays and wait for them."""
    _core.eval(*arrays)


def evaluate_later(*arrays: mx.array) -> None:
    """Start computing the arrays."""
    _core.async_eval(*arrays)


def to_mlx(array: npt.NDArray[Any]) -> mx.array:
    """Copy a numpy array to the device."""
    return _core.array(array)


def to_numpy(array: mx.array) -> npt.NDArray[Any]:
    """Return what an array holds, waiting for it if need be: the same memory, where the CPU can see it."""
    return np.asarray(cast("Any", array))


def gumbel(keys: mx.array, count: int) -> mx.array:
    """Return `count` samples of the standard Gumbel distribution for each key of (rows, 2) uint32."""

    def one(key: mx.array) -> mx.array:
        return mx.random.gumbel((count,), key=key)

    return _core.vmap(one)(keys)


def parameters(model: Any) -> list[tuple[str, mx.array]]:
    """Return the names and arrays of a model's parameters."""
    return member("mlx.utils", "tree_flatten")(model.parameters())


def change_parameters(model: Any, change: Callable[[mx.array], mx.array]) -> None:
    """Replace each parameter of a model by what `change` makes of it."""
    model.update(member("mlx.utils", "tree_map")(change, model.parameters()))


def flatten(value: Any) -> list[mx.array]:
    """Return the arrays in nested lists and dictionaries, or the array itself."""
    return [array for _, array in member("mlx.utils", "tree_flatten")(value) if isinstance(array, mx.array)]


def arrays(named: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Copy named numpy arrays to the device."""
    return {name: to_mlx(array) for name, array in named.items()}


def member(module: str, name: str) -> Any:
    """Return a member of a module that has no types worth the name."""
    return getattr(importlib.import_module(module), name)
