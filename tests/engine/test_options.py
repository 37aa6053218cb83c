"""What mlx-vlm can be told acts, and what cannot be acted on ends the start in one line."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import (
    save_file,  # pyright: ignore[reportUnknownVariableType]  # safetensors leaves the parameter of PathLike open
)

from mondrian_server.engine.process.loading import LoadError, load
from mondrian_server.engine.protocol import EngineConfig, LoadFailed, Ready, Submit
from tests.engine.architectures import ids_of_controls, write_architecture
from tests.engine.checkpoints import write_stumbling
from tests.engine.engines import Engine, Seen, picture, request

TARGET = "language_model.model.layers.0.self_attn.q_proj"
BUDGET = 6
ROPE = {"type": "mrope", "mrope_section": [4, 6, 6]}
VISION = {
    "model_type": "qwen2_5_vl",
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "num_heads": 2,
    "patch_size": 8,
    "window_size": 32,
    "fullatt_block_indexes": [1],
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of qwen2_5_vl, which can think, with heads of 32 numbers."""
    folder = tmp_path_factory.mktemp("options") / "tiny"
    return write_architecture("qwen2_5_vl", folder, hidden_size=64, rope_scaling=ROPE, vision_config=VISION)


def _rows(scope: str) -> list[Submit]:
    shown = ((picture(1),), (), (picture(2), picture(3)), ())
    return [
        request(
            f"row {n}", pictures=shown[n], cache_scope=f"{scope} {n}", temperature=n % 2, max_tokens=16, min_tokens=16
        )
        for n in range(4)
    ]


def _ids(rows: list[Seen]) -> list[list[int]]:
    return [row.ids for row in rows]


def _generated(folder: Path, **config: Any) -> tuple[Ready, list[list[int]]]:
    """Return what an engine says of its model, and the tokens of four rows, the same alone, together and warm."""
    with Engine(folder, prefill_step_tokens=16, **config) as engine:
        ready = engine.ready().start
        alone = engine.run_alone(_rows("alone"))
        together, warm = engine.run(*_rows("together")), engine.run(*_rows("together"))
        (rest,) = engine.run(msgspec.structs.replace(_rows("rest")[1], prior_ids=tuple(alone[1].ids[:5])))
    assert isinstance(ready, Ready)
    assert _ids(together) == _ids(alone)
    assert _ids(warm) == _ids(alone)
    assert rest.ids == alone[1].ids[5:]
    return ready, _ids(alone)


@pytest.fixture(scope="module")
def plain(tiny: Path) -> list[list[int]]:
    """What the checkpoint gives without any option."""
    return _generated(tiny)[1]


def test_keys_and_values_are_quantised(tiny: Path, plain: list[list[int]]) -> None:
    """Other tokens than without, the same alone, in company, with warm caches and after a restart."""
    ready, ids = _generated(tiny, kv_bits=2, kv_group_size=32)
    assert (ready.model.kv_cache_bits, ready.model.kv_cache_group_size) == (2, 32)
    assert ids != plain
    assert _generated(tiny, kv_bits=8, kv_group_size=32)[1] != ids


def _write_adapter(folder: Path, *, target: str = TARGET) -> Path:
    folder.mkdir()
    parameters = {"rank": 2, "scale": 20.0, "dropout": 0.0, "keys": [TARGET]}
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    random = np.random.default_rng(5)
    weights = {
        f"{target}.lora_a": random.normal(size=(64, 2)).astype(np.float32),
        f"{target}.lora_b": random.normal(size=(2, 64)).astype(np.float32),
    }
    save_file(weights, folder / "adapters.safetensors")
    return folder


def test_an_adapter_is_applied(tiny: Path, plain: list[list[int]], tmp_path: Path) -> None:
    """Other tokens than without, by its weights, and the model's description names it."""
    ready, ids = _generated(tiny, adapter=str(_write_adapter(tmp_path / "sketches")))
    assert ready.model.adapter == "sketches"
    assert ids != plain


def test_thinking_is_the_templates_affair(tiny: Path) -> None:
    """With it on, the prompt ends in the mark of thinking; without, it does not."""
    with Engine(tiny) as engine:
        (without,) = engine.ready().run(request(max_tokens=1))
    with Engine(tiny, thinking=True) as engine:
        (thoughtful,) = engine.ready().run(request(max_tokens=1))
        assert isinstance(engine.start, Ready)
        assert engine.start.model.thinking
    assert thoughtful.done.prompt_tokens == without.done.prompt_tokens + 2


def test_thinking_ends_with_its_budget(tiny: Path) -> None:
    """The end is forced at its place, once, alone and in company, and also after a restart before, at or past it."""
    end = ids_of_controls(tiny)["</think>"]
    with Engine(tiny, thinking=True, thinking_budget_tokens=BUDGET) as engine:
        rows = engine.ready().run_alone(_rows("alone"))
        assert _ids(engine.run(*_rows("together"))) == _ids(rows)
        whole, asked = rows[1], _rows("rest")[1]
        for cut in (BUDGET - 2, BUDGET, BUDGET + 1, BUDGET + 4):
            (rest,) = engine.run(msgspec.structs.replace(asked, prior_ids=tuple(whole.ids[:cut])))
            assert rest.ids == whole.ids[cut:]
    assert [row.ids.index(end) for row in rows] == [BUDGET] * len(rows), [row.ids for row in rows]


def test_only_those_who_think_are_stopped(tiny: Path) -> None:
    """A row that never began to think, or has ended by itself, is left alone."""
    with Engine(tiny) as engine:
        free = engine.ready().run_alone(_rows("alone"))
    with Engine(tiny, thinking_budget_tokens=BUDGET) as engine:
        assert _ids(engine.ready().run(*_rows("alone"))) == _ids(free)


def _refusal(folder: Path, **config: Any) -> str:
    """Return the one line in which a model is refused."""
    with pytest.raises(LoadError) as raised:
        load(EngineConfig(model=str(folder), slots=1, prefill_step_tokens=16, **config), lambda _: None)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_options_that_do_not_fit_the_model_are_refused(tiny: Path, tmp_path: Path) -> None:
    """Each line names the option and what is in its way."""
    plain = write_architecture("llava", tmp_path / "plain")
    assert _refusal(tiny, kv_bits=4, kv_group_size=64).startswith("kv_cache_group_size is 64, and must divide")
    assert _refusal(tiny, adapter="/nowhere") == "adapter_path: the folder /nowhere does not exist."
    assert _refusal(tiny, adapter=str(tiny)).endswith("because it has no adapter_config.json.")
    foreign = _write_adapter(tmp_path / "foreign", target="language_model.model.layers.7.mlp")
    assert "2 weights in" in _refusal(tiny, adapter=str(foreign))
    assert "thinking is set" in _refusal(plain, thinking=True)
    assert "no token </think>" in _refusal(plain, thinking_budget_tokens=5)


def _write_tokenizer_of_its_own(source: Path, folder: Path) -> Path:
    """Write a checkpoint whose tokeniser is Python code that leaves a trace when it is run."""
    write_stumbling(source, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["model_file"]
    (folder / "config.json").write_text(json.dumps(config))
    code = "from transformers import PreTrainedTokenizerFast\nfrom pathlib import Path\n"
    code += f"Path({str(folder / 'trace')!r}).touch()\n\n\nclass Own(PreTrainedTokenizerFast):\n    pass\n"
    (folder / "own.py").write_text(code)
    named = json.loads((folder / "tokenizer_config.json").read_text())
    named |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def test_a_models_own_code_runs_only_where_it_is_trusted(tiny: Path, tmp_path: Path) -> None:
    """A model that needs it is refused in a line that names the setting; a tokeniser that does not goes without."""
    own_model = write_stumbling(tiny, tmp_path / "model")
    (own_model / "stumbling.py").write_text("raise SystemExit('the code was run')")
    own_tokenizer = _write_tokenizer_of_its_own(tiny, tmp_path / "tokenizer")
    with Engine(own_model) as engine:
        engine.until(lambda: engine.start is not None)
    refused = f"The model {own_model} cannot be loaded: it needs Python code of its own; see trust_remote_code."
    assert engine.start == LoadFailed(message=refused)
    with Engine(own_tokenizer) as engine:
        assert engine.ready().run(request(max_tokens=1))[0].done.output_tokens == 1
    assert not (own_tokenizer / "trace").exists()
    with Engine(own_tokenizer, trust_remote_code=True) as engine:
        assert engine.ready().run(request(max_tokens=1))[0].done.output_tokens == 1
        assert isinstance(engine.start, Ready)
        assert engine.start.model.trusts_remote_code
    assert (own_tokenizer / "trace").exists()


def test_memory_is_told(tiny: Path) -> None:
    """What is in use, and the most that was; the weights are part of it."""
    with Engine(tiny) as engine:
        ready = engine.ready().start
        engine.run(request(max_tokens=4))
    assert isinstance(ready, Ready)
    assert ready.model.weights_bytes <= ready.active_memory_bytes <= ready.peak_memory_bytes
    assert engine.steps[-1].active_memory_bytes >= ready.model.weights_bytes
