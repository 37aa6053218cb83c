"""A server whose model is still to be downloaded: callers see it come, and what cannot be had ends the start."""

from pathlib import Path

import pytest

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import model_service_pb2 as model_pb2
from tests.conditions import eventually
from tests.engine.architectures import write_architecture
from tests.engine.hub_server import REPOSITORY, HubServer
from tests.service.programs import program, start

TOKEN = "hf_operatorsown"  # noqa: S105  # of a Hub that asks for none
PATIENT = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3, min_tokens=3))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a small model."""
    return write_architecture("qwen2", tmp_path_factory.mktemp("hub") / "tiny", hidden_size=128)


def _variables(hub: HubServer, folder: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
    }


async def test_callers_see_a_download_come(repository: Path, tmp_path: Path) -> None:
    """An analysis waits with the bytes in its progress, `ModelService` tells them, and after it all is as ever."""
    with HubServer(repository) as hub:
        hub.faults.hold_after = 200_000
        async with program(tmp_path, "--model", REPOSITORY, ready=False, **_variables(hub, tmp_path)) as server:
            call = server.call(PATIENT)
            request = model_pb2.GetModelRequest(name="models/tiny")

            async def shows_bytes() -> bool:
                model = (await server.models.GetModel(request)).model
                return model.downloading and 0 < model.loaded_bytes < model.total_bytes

            await eventually(shows_bytes, within_s=60.0)
            event = await call.until(lambda event: event.progress.message.startswith("Downloading the model... ("))
            assert event.progress.stage == pb.STAGE_LOADING_MODEL
            hub.faults.hold_after = None
            hub.faults.released.set()
            outcome = await call.outcome()
            assert outcome.completed.usage.output_tokens == 3
            model = (await server.models.GetModel(request)).model
            assert (model.architecture, model.downloading, model.total_bytes) == ("qwen2", False, 0)
            assert TOKEN not in server.errors


async def test_a_model_that_cannot_be_had_ends_the_server(repository: Path, tmp_path: Path) -> None:
    """One line on stderr, and exit status 1."""
    with HubServer(repository) as hub:
        variables = _variables(hub, tmp_path)
    process = await start(tmp_path, "--grpc-address", "127.0.0.1:0", "--model", REPOSITORY, **variables)
    assert await process.wait() == 1
    last = (tmp_path / "stderr").read_text().splitlines()[-1]
    assert last.startswith(f"mondrian: The model {REPOSITORY} cannot be downloaded: it is not in the local cache, and ")
    assert last.endswith("cannot be reached.")
