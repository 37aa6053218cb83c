"""Linear layers on Linux's CPU give what mlx gives: fast where pictures are encoded, exact where rows come together."""

import subprocess
import sys
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from mondrian_server.engine.process import loading
from mondrian_server.engine.process.linear_layers import speed_up_linear_layers
from mondrian_server.engine.process.mlx_typed import evaluate, member, parameters, to_numpy
from mondrian_server.engine.protocol import EngineConfig
from tests.checkpoints import EMBEDDED

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="nothing is changed on macOS")


class Model(nn.Module):
    """A model of one layer in each half."""

    def __init__(self, *, bias: bool = True):
        """Draw the weights."""
        super().__init__()
        mx.random.seed(1)
        self.vision_tower: Any = nn.Linear(160, 480, bias=bias)
        self.language_model: Any = nn.Sequential(nn.Linear(160, 480, bias=bias))


class Scaled(nn.Linear):
    """A layer that is derived from a linear one and computes something else."""

    def __call__(self, x: mx.array) -> mx.array:
        """Return twice what a linear layer gives."""
        return 2 * super().__call__(x)


def _inputs(*shape: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(2)).astype(dtype)


def _is_numpys(layer: Any) -> bool:
    """Whether a layer's sums are numpy's to the last bit, which those of mlx are not."""
    inputs = _inputs(64, layer.weight.shape[1])
    by_numpy = to_numpy(inputs) @ to_numpy(layer.weight).T
    if "bias" in layer:
        by_numpy += to_numpy(layer.bias)
    return np.array_equal(to_numpy(layer(inputs)), by_numpy)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_results_are_those_of_mlx(bias: bool, dtype: mx.Dtype) -> None:
    """Both halves, inputs of two and three dimensions, laid out as they come and transposed."""
    model = Model(bias=bias)
    flat, tiles = _inputs(64, 160, dtype=dtype), _inputs(2, 160, 64, dtype=dtype).swapaxes(1, 2)
    expected = [half(inputs) for half in (model.vision_tower, model.language_model) for inputs in (flat, tiles)]
    evaluate(*expected)
    speed_up_linear_layers(model, apart=True)
    results = [half(inputs) for half in (model.vision_tower, model.language_model) for inputs in (flat, tiles)]
    for result, right in zip(results, expected, strict=True):
        assert result.dtype == right.dtype
        np.testing.assert_allclose(to_numpy(result), to_numpy(right), rtol=1e-4, atol=1e-5)


def test_numpy_computes_what_works_for_one_row() -> None:
    """Which makes encoding fast; no time is measured here, but whose sum it is. Where rows may meet, mlx computes."""
    model, unknown = Model(), Model()
    assert not _is_numpys(model.vision_tower)
    speed_up_linear_layers(model, apart=True)
    speed_up_linear_layers(unknown, apart=False)
    assert _is_numpys(model.vision_tower)
    assert not _is_numpys(unknown.vision_tower)


def test_a_row_of_the_language_half_does_not_depend_on_the_others() -> None:
    """Not in the last bit."""
    model, inputs = Model(), _inputs(64, 160)
    speed_up_linear_layers(model, apart=True)
    together = to_numpy(model.language_model(inputs))
    for rows in (1, 3, 32):
        assert np.array_equal(to_numpy(model.language_model(inputs[:rows])), together[:rows])


def test_layers_of_other_kinds_stay() -> None:
    """Quantised ones, ones of which anything is in half precision, and ones that are derived from linear ones."""
    quantised, mixed, derived = Model(), Model(), Model()
    member("mlx.nn", "quantize")(quantised, group_size=32, bits=8)
    mixed.vision_tower.bias = mixed.vision_tower.bias.astype(mx.bfloat16)
    derived.vision_tower = Scaled(160, 480)
    for model in (quantised, mixed, derived):
        expected = to_numpy(model.vision_tower(_inputs(4, 160)))
        speed_up_linear_layers(model, apart=True)
        assert np.array_equal(to_numpy(model.vision_tower(_inputs(4, 160))), expected)


def test_a_loaded_model_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every linear layer of the embedded model outside its language half is numpy's, and none within; all count."""
    monkeypatch.setattr(loading, "keep_numpy", id)  # It changes mlx-vlm, for every test of this process.
    model = loading.load(EngineConfig(model=str(EMBEDDED), slots=1, prefill_step_tokens=16), lambda _: None)
    language = {id(module) for _, module in model.model.language_model.named_modules()}
    layers = [module for _, module in model.model.named_modules() if isinstance(module, nn.Linear)]
    assert {id(layer) in language for layer in layers} == {True, False}
    for layer in layers:
        assert _is_numpys(layer) is (id(layer) not in language)
    assert model.description.parameters == sum(array.size for _, array in parameters(model.model))


def test_numpy_has_one_thread_in_the_engine() -> None:
    """The entry says so before numpy, which reads it once, is imported; and mlx, which takes seconds, comes later."""
    program = "import sys, mondrian_server.engine.process.__main__ as _; print({'numpy', 'mlx'} & sys.modules.keys())"
    answer = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"
