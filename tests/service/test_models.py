"""Other models than the embedded one: what ModelService tells of them, and what they refuse."""

from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import model_service_pb2 as model_pb2
from mondrian_server.errors import StartupError
from tests.engine.architectures import write_architecture
from tests.service.calls import Running, settings_for, started


@pytest_asyncio.fixture(scope="module")
async def text_only(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A service on a model that reads text alone, with quantised keys and values and a budget for thinking."""
    folder = write_architecture("qwen2", tmp_path_factory.mktemp("models") / "wordy", hidden_size=64)
    settings = settings_for(
        tmp_path_factory.mktemp("data"),
        model=str(folder),
        kv_cache_bits=8,
        kv_cache_group_size=32,
        thinking=True,
        thinking_budget_tokens=9,
    )
    async with started(settings) as running:
        yield running


async def test_a_text_only_model_refuses_images_by_their_field(text_only: Running, picture: bytes) -> None:
    """INVALID_ARGUMENT names `config.images`; the same question without them is answered."""
    sampling = pb.Sampling(max_tokens=5, min_tokens=5)
    refused = await text_only.ask(pb.AnalysisConfig(prompt="Hello", images=[pb.Image(data=picture)], sampling=sampling))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.reason, refused.field_at_fault) == ("INVALID_REQUEST", "config.images")
    assert "does not accept images" in refused.message
    answered = await text_only.ask(pb.AnalysisConfig(prompt="Hello", sampling=sampling))
    assert answered.completed.usage.output_tokens == 5


async def test_a_model_tells_how_it_is_run(text_only: Running) -> None:
    """Architecture, context, quantisation, thinking and memory, beside the name that its folder gives it."""
    (model,) = (await text_only.models.ListModels(model_pb2.ListModelsRequest())).models
    assert (model.name, model.architecture, model.context_tokens) == ("models/wordy", "qwen2", 1024)
    assert (model.quantization_bits, model.kv_cache_bits, model.kv_cache_group_size) == (0, 8, 32)
    assert (model.thinking, model.thinking_budget_tokens) == (True, 9)
    assert (model.accepts_images, model.trusts_remote_code, model.adapter) == (False, False, "")
    assert model.weights_bytes <= model.active_memory_bytes <= model.peak_memory_bytes


async def test_what_does_not_fit_the_model_ends_the_start(tmp_path: Path) -> None:
    """One line names the setting."""
    settings = settings_for(tmp_path / "data", adapter_path=tmp_path / "nowhere")
    async with started(settings, ready=False) as up:
        with pytest.raises(StartupError, match=r"adapter_path: the folder .*nowhere does not exist\."):
            await up.service.ended()
