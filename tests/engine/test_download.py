"""A model is downloaded by its Hugging Face id: told in bytes, resumed, and refused in one line that says why."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mondrian_server.engine.protocol import LoadFailed, Loading, Ready
from tests.engine.architectures import write_architecture
from tests.engine.engines import Engine, request
from tests.engine.hub_server import REPOSITORY, HubServer

TOKEN = "hf_operatorsown"  # noqa: S105  # of a Hub that asks for none
SURPLUS = ("README.md", "pytorch_model.bin", "consolidated.safetensors", "code.py")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a model, and some that a model does not need."""
    folder = write_architecture("qwen2", tmp_path_factory.mktemp("hub") / "tiny", hidden_size=128)
    for name in SURPLUS:
        (folder / name).write_text("not needed")
    return folder


@pytest.fixture
def hub(repository: Path) -> Generator[HubServer]:
    """A Hub with the model."""
    with HubServer(repository) as server:
        yield server


def _engine(hub: HubServer, home: Path, model: str = REPOSITORY, **config: Any) -> Engine:
    variables = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(config.pop("offline", 0)),
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
    }
    return Engine(model, variables=variables, **config)


def _downloads(engine: Engine) -> list[Loading]:
    return [frame for frame in engine.loading if frame.downloading]


def _outcome(engine: Engine) -> str:
    """Return the line with which an engine ends that cannot load its model."""
    engine.until(lambda: engine.start is not None)
    assert isinstance(engine.start, LoadFailed), engine.start
    return engine.start.message


def test_a_download_is_told_in_bytes_and_serves_without_the_hub(
    hub: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only what a model needs is fetched, with the operator's token, which no log shows; then the Hub may be gone."""
    with _engine(hub, tmp_path) as engine:
        (first,) = engine.ready().run(request(max_tokens=4))
        told = _downloads(engine)
    needed = {name: len(content) for name, content in hub.files.items() if name not in SURPLUS}
    assert {one.name for one in hub.fetched} == set(needed)
    assert len(hub.fetched) == len(needed)
    assert {one.authorization for one in hub.fetched} == {f"Bearer {TOKEN}"}
    assert [one.done_bytes for one in told] == sorted({one.done_bytes for one in told})
    assert {one.total_bytes for one in told} == {sum(needed.values())}
    assert told[0].message == f"Downloading {REPOSITORY}..."
    hub.stop()
    with _engine(hub, tmp_path) as engine:
        (second,) = engine.ready().run(request(max_tokens=4))
        assert not _downloads(engine)
    assert first.ids == second.ids
    assert TOKEN not in "".join(capfd.readouterr())


def test_a_download_goes_on_where_it_was_cut(hub: HubServer, tmp_path: Path) -> None:
    """The connection is lost in the middle of the weights: the rest is fetched, and nothing twice."""
    hub.faults.cut_after = 200_000
    with _engine(hub, tmp_path) as engine:
        assert isinstance(engine.ready().start, Ready)
    ranges = [one.range for one in hub.fetched if one.name == hub.large]
    assert len(ranges) == 2
    assert ranges[0] == ""
    assert 0 < _first_byte(ranges[1]) <= 200_000


def test_a_download_goes_on_after_the_engine_was_killed(hub: HubServer, tmp_path: Path) -> None:
    """What had come is kept, is told as done from the beginning, and is not fetched again."""
    hub.faults.hold_after = 200_000
    with _engine(hub, tmp_path) as engine:
        engine.until(lambda: any(one.done_bytes > 120_000 for one in _downloads(engine)))
        engine.process.kill()
        engine.exit_status()
    hub.faults.hold_after = None
    hub.faults.released.set()
    with _engine(hub, tmp_path) as engine:
        engine.ready()
        first = _downloads(engine)[0]
    last = [one.range for one in hub.fetched if one.name == hub.large][-1]
    assert 100_000 < _first_byte(last) <= 200_000
    assert first.total_bytes < len(hub.files[hub.large]) + 100_000


def test_a_part_that_was_damaged_is_fetched_anew(hub: HubServer, tmp_path: Path) -> None:
    """The sum of the whole file tells; the line says so, and the next start is good."""
    blobs = tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.etag(hub.large)}.mondrian").write_bytes(b"\xff" * 70_000)
    with _engine(hub, tmp_path) as engine:
        assert "damaged" in _outcome(engine)
    with _engine(hub, tmp_path) as engine:
        assert isinstance(engine.ready().start, Ready)


def test_a_download_that_brings_nothing_ends(hub: HubServer, tmp_path: Path) -> None:
    """The line tells for how long, and how far it had come."""
    hub.faults.hold_after = 200_000
    with _engine(hub, tmp_path, download_stall_limit_s=1.5) as engine:
        line = _outcome(engine)
        assert engine.exit_status() == 1
    assert line.startswith(f"The model {REPOSITORY} cannot be downloaded: the download brought nothing for 1.5 s, at ")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((404, "RepoNotFound"), "has no such model, or it is private"),
        ((401, "RepoNotFound"), "has no such model, or it is private"),
        ((403, "GatedRepo"), "it is gated: accept its terms at"),
        ((503, ""), "cannot be reached"),
    ],
    ids=["missing", "unauthorised", "gated", "down"],
)
def test_what_the_hub_refuses_is_told_in_one_line(
    fault: tuple[int, str], said: str, hub: HubServer, tmp_path: Path
) -> None:
    """The line names the model, and says why it cannot be had."""
    hub.faults.status = fault
    with _engine(hub, tmp_path) as engine:
        line = _outcome(engine)
    assert line.startswith(f"The model {REPOSITORY} cannot be downloaded: ")
    assert said in line
    assert "\n" not in line
    assert TOKEN not in line


@pytest.mark.parametrize("case", ["no server", "offline", "no id"])
def test_what_cannot_be_asked_for_is_told_in_one_line(case: str, hub: HubServer, tmp_path: Path) -> None:
    """Without a network, where the operator forbids it, and for a name that cannot be one."""
    if case == "no server":
        hub.stop()
    model = "no/such/name" if case == "no id" else REPOSITORY
    with _engine(hub, tmp_path, model, offline=int(case == "offline")) as engine:
        line = _outcome(engine)
    said = {"no server": "cannot be reached", "offline": "HF_HUB_OFFLINE", "no id": "neither a folder nor"}[case]
    assert line.startswith(f"The model {model} cannot be downloaded: it is ")
    assert said in line
    assert hub.fetched == []


def _first_byte(range_: str) -> int:
    return int(range_.removeprefix("bytes=").removesuffix("-"))
