"""An engine starts with its progress told, refuses a bad model in one line, and ends with its channel."""

import json
import os
import shutil
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from mondrian_server.engine.process.loading import LoadError, load
from mondrian_server.engine.protocol import EngineConfig, LoadFailed, Loading, Ready, RowCancelled
from tests.checkpoints import parameters_of, write_truncated
from tests.engine.checkpoints import change_config
from tests.engine.engines import Engine, Seen, request


@pytest.fixture(scope="module")
def early(untrained: Path) -> Generator[tuple[Engine, Seen, Seen]]:
    """An engine that was sent two rows, and a cancel of the second, while it loaded."""
    with Engine(untrained, slots=3) as engine:
        kept, gone = engine.submit(request()), engine.submit(request())
        engine.cancel(gone)
        served, cancelled = engine.closed([kept, gone])
        yield engine, served, cancelled


def test_commands_may_come_while_the_model_loads(early: tuple[Engine, Seen, Seen]) -> None:
    """Rows submitted and cancelled before the engine is ready are served and closed after."""
    _, served, cancelled = early
    assert served.done.output_tokens == 16
    assert [type(update) for update in cancelled.updates] == [RowCancelled]


def test_loading_is_told_in_bytes(early: tuple[Engine, Seen, Seen], untrained: Path) -> None:
    """The bytes never fall and end at all of them; the model is described; beats come all the while."""
    engine, _, _ = early
    assert isinstance(engine.start, Ready)
    model = engine.start.model
    done = [frame.done_bytes for frame in engine.loading]
    assert done == sorted(done)
    assert engine.loading[-1].done_bytes == engine.loading[-1].total_bytes == model.weights_bytes
    assert model.weights_bytes >= 2 * model.parameters
    assert model.parameters == parameters_of(untrained)
    assert (model.architecture, model.context_tokens, model.slots) == ("smolvlm", 4096, 3)
    assert model.accepts_images
    assert model.quantization_bits == 0
    assert {beat.operation for beat in engine.beats} >= {"load"}


def test_an_engine_names_itself(flat: Engine) -> None:
    """`ps` shows what the process is."""
    assert flat.process.cmdline()[0] == "mondrian: engine"


def test_an_idle_engine_waits_without_spinning(flat: Engine) -> None:
    """It beats, and uses next to no processor time."""
    flat.run(request(max_tokens=1))
    flat.until(lambda: flat.beats[-1].operation == "idle")
    before, seen = flat.process.cpu_times(), len(flat.beats)
    flat.until(lambda: len(flat.beats) >= seen + 8)
    after = flat.process.cpu_times()
    assert flat.beats[-1].operation == "idle"
    assert flat.beats[-1].operation_s > 1.0
    assert after.user + after.system - before.user - before.system < 0.2


def test_beats_name_the_running_operation(flat: Engine) -> None:
    """While rows are generated they say so."""
    row = flat.submit(request(max_tokens=1000, min_tokens=1000, details=False))
    flat.until(lambda: flat.beats[-1].operation == "decode")
    flat.cancel(row)
    flat.closed([row])


def test_an_engine_ends_when_its_channel_closes(untrained: Path) -> None:
    """The server's death is the engine's, also in the middle of a row."""
    with Engine(untrained) as engine:
        engine.ready()
        row = engine.submit(request(max_tokens=2000, min_tokens=2000))
        engine.until(lambda: bool(engine.rows[row].tokens))
        engine.hang_up()
        assert engine.exit_status() == 0


def test_an_engine_ends_when_its_channel_closes_before_it_is_configured() -> None:
    """Also while it loads."""
    with Engine("/nowhere") as engine:
        engine.hang_up()
        assert engine.exit_status() in (0, 1)


def test_an_interrupt_does_not_end_an_engine(flat: Engine) -> None:
    """Ctrl-C in a terminal is the server's to answer."""
    os.kill(flat.process.pid, signal.SIGINT)
    assert flat.run(request(max_tokens=1))[0].done.output_tokens == 1


def _break(kind: str, folder: Path, source: Path) -> str:
    """Write a model that is broken in this way, and return what the one line must say."""
    if kind == "truncated":
        write_truncated(folder)
        return "corrupt file"
    shutil.copytree(source, folder)
    match kind:
        case "weightless":
            (folder / "model.safetensors").unlink()
        case "malformed":
            (folder / "config.json").write_text("{")
        case "foreign":
            change_config(folder, model_type="cubist")
        case _:
            text = json.loads((folder / "config.json").read_text())["text_config"]
            change_config(folder, text_config=text | {"hidden_size": 64})
    return {"weightless": "No safetensors found", "malformed": "not JSON", "foreign": "cubist not supported"}.get(
        kind, "shape"
    )


@pytest.mark.parametrize("kind", ["truncated", "weightless", "malformed", "foreign", "misshapen"], ids=str)
def test_a_broken_model_is_explained_in_one_line(kind: str, untrained: Path, tmp_path: Path) -> None:
    """The line names the model and what is wrong with it."""
    folder = tmp_path / "model"
    said = _break(kind, folder, untrained)
    reports: list[Loading] = []
    with pytest.raises(LoadError) as raised:
        load(EngineConfig(model=str(folder), slots=1, prefill_step_tokens=1), reports.append)
    line = str(raised.value)
    assert str(folder) in line
    assert said in line
    assert "\n" not in line


def test_an_engine_without_a_model_ends(tmp_path: Path) -> None:
    """It says why in one frame, and its status is not 0."""
    with Engine(tmp_path / "nowhere") as engine:
        engine.until(lambda: engine.start is not None)
        assert engine.exit_status() == 1
    assert engine.start == LoadFailed(message=f"The model folder {tmp_path / 'nowhere'} does not exist.")


def test_an_engine_with_a_useless_model_ends(untrained: Path, tmp_path: Path) -> None:
    """A model that loads, and fails on the first picture, is refused before anybody asks it anything."""
    folder = shutil.copytree(untrained, tmp_path / "model")
    (folder / "processor_config.json").write_text('{"processor_class": "SmolVLMProcessor", "image_seq_len": 3}')
    with Engine(folder) as engine:
        engine.until(lambda: engine.start is not None)
        assert engine.exit_status() == 1
    assert isinstance(engine.start, LoadFailed)
    assert "do not match" in engine.start.message
