"""Every architecture: a row is the same alone, in company, with warm caches, and as mlx-vlm itself generates it.

qwen2_vl stands for all those of which the engine knows nothing.
"""

import importlib
import json
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from mondrian_server.engine.protocol import RowFailed, Submit
from mondrian_server.events import Stage
from mondrian_server.pictures import Picture
from tests.engine.architectures import (
    ARCHITECTURES,
    id_of_piece,
    ids_of_controls,
    write_architecture,
    write_insisting,
)
from tests.engine.checkpoints import write_stumbling
from tests.engine.engines import Engine, Seen, picture, request

VISUAL = tuple(name for name, one in ARCHITECTURES.items() if one.placeholder)
STEP_TOKENS = 16  # Prompts take several chunks, and pictures lie across them.
ALBUM = (picture(1), picture(2, width=40, height=70), picture(3, width=64, height=64))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each architecture."""
    folder = tmp_path_factory.mktemp("architectures")
    return {name: write_architecture(name, folder / name) for name in ARCHITECTURES}


@pytest.fixture(scope="module", params=tuple(ARCHITECTURES))
def engine(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Generator[Engine]:
    """An engine of each architecture in turn."""
    with Engine(checkpoints[request.param], prefill_step_tokens=STEP_TOKENS) as engine:
        yield engine.ready()


def _name(engine: Engine) -> str:
    return Path(engine.model).name


def _shown(name: str) -> tuple[tuple[Picture, ...], ...]:
    """Return the pictures of four rows: one, none, two, none, where the architecture takes any."""
    return (ALBUM[:1], (), ALBUM[1:], ()) if name in VISUAL else ((), (), (), ())


def _four(name: str, temperature: float, scope: str) -> list[Submit]:
    return [
        request(
            "What is it? " * (n + 1),
            pictures=shown,
            cache_scope=f"{scope} {n}",
            temperature=temperature,
            seed=n,
            top_p=0.9 if n == 3 else 1.0,
            repetition_penalty=1.1 if n < 2 else 1.0,
            max_tokens=20 - n,
            min_tokens=20 - n,
        )
        for n, shown in enumerate(_shown(name))
    ]


def _ids(rows: Sequence[Seen]) -> list[list[int]]:
    assert all(row.done.output_tokens == len(row.ids) for row in rows)
    return [row.ids for row in rows]


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_a_row_is_the_same_alone_and_among_four(engine: Engine, temperature: float) -> None:
    """Rows with one picture, with two and with none, each alone; then all at once, with caches cold and warm."""
    name, scope = _name(engine), f"{temperature}"
    alone = engine.run_alone(_four(name, temperature, f"alone {scope}"))
    cold = engine.run(*_four(name, temperature, f"together {scope}"))
    warm = engine.run(*_four(name, temperature, f"together {scope}"))
    assert len({tuple(ids) for ids in _ids(alone)}) == len(alone)
    assert _ids(cold) == _ids(alone)
    assert _ids(warm) == _ids(alone)
    assert [row.text for row in cold] == [row.text for row in alone]
    for row, shown in zip(alone, _shown(name), strict=True):
        assert (row.done.image_tokens > 0) == bool(shown)
        assert (row.stages[0] == Stage.ENCODING) == bool(shown)
    assert not any(Stage.ENCODING in row.stages for row in warm)


def test_a_row_that_continues_gives_the_rest(engine: Engine) -> None:
    """The tokens of an earlier life and those of the next are those of one life, wherever it was cut."""
    whole = engine.run_alone(_four(_name(engine), 1.0, "whole"))
    for row, asked in zip(whole, _four(_name(engine), 1.0, "rest"), strict=True):
        for cut in (1, 9, len(row.ids) - 1):
            (rest,) = engine.run(msgspec.structs.replace(asked, prior_ids=tuple(row.ids[:cut])))
            assert rest.ids == row.ids[cut:]


def _of_mlx_vlm(folder: Path, prompt: str, pictures: Sequence[Picture], count: int) -> list[int]:
    """Return what mlx-vlm's own loop for one row generates, greedily, for a prompt in the model's chat format."""
    model, processor = importlib.import_module("mlx_vlm").load(str(folder))
    mx: Any = importlib.import_module("mlx.core")
    model.set_dtype(mx.float32)
    tokenizer = getattr(processor, "tokenizer", processor)
    images = [Image.frombytes("RGB", (p.width, p.height), p.pixels) for p in pictures]
    inputs: dict[str, Any] = dict(processor(text=[prompt], images=images) if images else tokenizer([prompt]))
    arrays = {key: mx.array(np.array(value)) for key, value in inputs.items()}
    step = importlib.import_module("mlx_vlm.generate.ar").generate_step
    rest = {key: value for key, value in arrays.items() if key not in ("input_ids", "pixel_values", "attention_mask")}
    steps = step(
        arrays["input_ids"],
        model,
        arrays.get("pixel_values"),
        arrays["attention_mask"],
        max_tokens=count,
        temperature=0.0,
        **rest,
    )
    return [int(token) for token, _ in steps]


def test_a_row_is_what_mlx_vlm_generates(engine: Engine) -> None:
    """With pictures and without, the prompt in the model's own format, computed in chunks and at once."""
    name, text = _name(engine), "WHAT?"
    frame = ARCHITECTURES[name].frame
    for pictures in {(), ALBUM[: len(VISUAL) and 1], ALBUM[1:]} if name in VISUAL else {()}:
        wanted = _of_mlx_vlm(Path(engine.model), frame(len(pictures), text), pictures, 12)
        (row,) = engine.run(request(text, pictures=pictures, max_tokens=12, min_tokens=12))
        assert row.ids == wanted


def test_typed_control_tokens_are_plain_text(engine: Engine) -> None:
    """Placeholders, ends of turns and marks of thinking that a caller types count as characters, and end nothing."""
    spelling = ARCHITECTURES[_name(engine)].spelling
    (plain,) = engine.run(request("a", max_tokens=1))
    for typed in (*spelling.controls, *spelling.plain):
        (row,) = engine.run(request(f"a{typed}", max_tokens=1))
        assert row.done.image_tokens == 0
        assert row.done.prompt_tokens >= plain.done.prompt_tokens + 3


@pytest.mark.parametrize("name", VISUAL)
def test_no_placeholder_is_ever_sampled(name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Not even by a model that insists on it."""
    placeholder = ids_of_controls(checkpoints[name])[ARCHITECTURES[name].placeholder]
    insisting = write_insisting(checkpoints[name], tmp_path / name, placeholder)
    with Engine(insisting) as engine:
        rows = engine.ready().run(*(request(f"row {n}", temperature=1.0, seed=n, max_tokens=40) for n in range(4)))
    assert sum(len(row.ids) for row in rows) > 40
    assert placeholder not in {i for row in rows for i in row.ids}


@pytest.mark.parametrize("name", VISUAL)
def test_a_row_that_fails_leaves_its_neighbours_as_they_are(
    name: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """One row fails in a picture, one in its prompt; the others, before them and after, give what they give alone."""
    folder = write_stumbling(
        checkpoints[name],
        tmp_path / name,
        picture="pixels.min().item() > 0.99",
        prompt=f"ids.count({id_of_piece(checkpoints[name], '~')}) > 3",
    )
    first, second, third, last = _four(name, 1.0, "good")
    in_its_picture = request(pictures=(_white(),), cache_scope="bad")
    in_its_prompt = request("~" * 40, pictures=ALBUM[:1], cache_scope="bad")
    with Engine(folder, prefill_step_tokens=STEP_TOKENS, trust_remote_code=True) as engine:
        alone = engine.ready().run_alone(_four(name, 1.0, "alone"))
        rows = engine.run(first, in_its_picture, second, third, in_its_prompt, last)
    failed = [rows.pop(4), rows.pop(1)]
    assert [row.closing for row in failed] == [
        RowFailed(row=n, reason="GENERATION_FAILED", message="The model failed on this analysis.") for n in (9, 6)
    ]
    assert failed[0].stages[-1] is Stage.PREFILL
    assert failed[1].stages[-1] is Stage.ENCODING
    assert _ids(rows) == _ids(alone)


def _white() -> Picture:
    return Picture(width=64, height=64, pixels=b"\xff" * (64 * 64 * 3), digest=b"white")


def test_more_pictures_than_a_chat_format_takes_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A template that has no place for a second picture before the text: one is answered, two are refused."""
    folder = shutil.copytree(checkpoints["llava"], tmp_path / "single")
    named = json.loads((folder / "tokenizer_config.json").read_text())
    loop = "{% for m in messages %}"
    assert loop in named["chat_template"]
    first_only = loop + "{% if m['content'] | length == 3 %}{{ raise_exception('one') }}{% endif %}"
    named["chat_template"] = named["chat_template"].replace(loop, first_only)
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    with Engine(folder) as engine:
        one, two = engine.ready().run(request(pictures=ALBUM[:1], max_tokens=2), request(pictures=ALBUM[:2]))
    assert one.done.image_tokens > 0
    assert isinstance(two.closing, RowFailed)
    assert (two.closing.reason, two.closing.field) == ("INVALID_REQUEST", "config.images")


def test_a_text_only_model_refuses_pictures(checkpoints: dict[str, Path]) -> None:
    """The refusal names the field; a text beside it is answered."""
    with Engine(checkpoints["qwen2"]) as engine:
        refused, answered = engine.ready().closed(
            [engine.submit(request(pictures=ALBUM[:1])), engine.submit(request(max_tokens=3, min_tokens=3))]
        )
    assert isinstance(refused.closing, RowFailed)
    assert (refused.closing.reason, refused.closing.field) == ("INVALID_REQUEST", "config.images")
    assert answered.done.output_tokens == 3
