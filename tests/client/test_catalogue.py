"""Advisors, models and readiness."""

import asyncio

import pytest

import mondrian
from mondrian.v1 import advisor_service_pb2 as advisors_pb
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import model_service_pb2 as models_pb
from tests.client.conftest import Caller
from tests.client.scripted_server import ScriptedServer


async def test_advisors_of_all_pages_are_listed(server: ScriptedServer, caller: Caller) -> None:
    """The client follows the pages to the last one."""
    server.advisors = [
        advisors_pb.Advisor(name=f"advisors/a{index}", description=f"number {index}") for index in range(5)
    ]
    advisors = await caller.call("list_advisors")
    assert [advisor.name for advisor in advisors] == [f"advisors/a{index}" for index in range(5)]


async def test_an_advisor_keeps_its_unset_sampling_unset(server: ScriptedServer, caller: Caller) -> None:
    """A default that the advisor does not set is None, not zero."""
    server.advisors = [
        advisors_pb.Advisor(
            name="advisors/ansel",
            display_name="Ansel",
            description="Light.",
            instructions="Look at the light.",
            sampling=pb.Sampling(temperature=0.0),
        )
    ]
    assert await caller.call("list_advisors") == [
        mondrian.Advisor(
            name="advisors/ansel",
            display_name="Ansel",
            description="Light.",
            instructions="Look at the light.",
            sampling=mondrian.Sampling(temperature=0.0),
        )
    ]


async def test_models_of_all_pages_are_listed(server: ScriptedServer, caller: Caller) -> None:
    """The client follows the pages, and a state that it does not know is UNKNOWN."""
    states = [models_pb.MODEL_STATE_LOADING, models_pb.MODEL_STATE_READY, models_pb.MODEL_STATE_UNAVAILABLE]
    server.models = [models_pb.Model(name=f"models/m{state}", state=state) for state in states]
    server.models = [*server.models, models_pb.Model(name="models/new", state=99)]  # type: ignore[arg-type]
    models = await caller.call("list_models")
    assert [(model.name, model.state.name) for model in models] == [
        ("models/m1", "LOADING"),
        ("models/m2", "READY"),
        ("models/m3", "UNAVAILABLE"),
        ("models/new", "UNKNOWN"),
    ]


async def test_a_model_is_found_by_its_name(server: ScriptedServer, caller: Caller) -> None:
    """`get_model` returns every field of the model."""
    server.models = [
        models_pb.Model(
            name="models/tiny",
            state=models_pb.MODEL_STATE_READY,
            architecture="smolvlm",
            context_tokens=2048,
            slots=32,
            slots_in_use=2,
            queue_length=1,
            parameters=3_000_000,
            weights_bytes=6_000_000,
            quantization_bits=4,
            peak_memory_bytes=9_000_000,
            loaded_bytes=6_000_000,
            accepts_images=True,
            total_bytes=6_500_000,
            downloading=True,
            active_memory_bytes=8_000_000,
            kv_cache_bits=8,
            kv_cache_group_size=32,
            adapter="sketches",
            thinking=True,
            thinking_budget_tokens=100,
            trusts_remote_code=True,
        )
    ]
    assert await caller.call("get_model", "models/tiny") == mondrian.Model(
        name="models/tiny",
        state=mondrian.ModelState.READY,
        architecture="smolvlm",
        context_tokens=2048,
        slots=32,
        slots_in_use=2,
        queue_length=1,
        parameters=3_000_000,
        weights_bytes=6_000_000,
        quantization_bits=4,
        peak_memory_bytes=9_000_000,
        loaded_bytes=6_000_000,
        accepts_images=True,
        total_bytes=6_500_000,
        downloading=True,
        active_memory_bytes=8_000_000,
        kv_cache_bits=8,
        kv_cache_group_size=32,
        adapter="sketches",
        thinking=True,
        thinking_budget_tokens=100,
        trusts_remote_code=True,
    )


async def test_a_model_that_is_not_there_raises_not_found(caller: Caller) -> None:
    """An unknown name raises ModelNotFound."""
    with pytest.raises(mondrian.ModelNotFound, match="models/absent"):
        await caller.call("get_model", "models/absent")


async def test_waiting_ends_when_the_server_turns_ready(server: ScriptedServer, caller: Caller) -> None:
    """`wait_until_ready` waits while the server says NOT_SERVING, and returns when it serves."""
    await server.set_ready(False)
    waiting = asyncio.create_task(caller.call("wait_until_ready", timeout=10))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    await server.set_ready(True)
    await asyncio.wait_for(waiting, 2)


async def test_waiting_outlasts_a_server_that_is_not_up_yet(server: ScriptedServer, caller: Caller) -> None:
    """`wait_until_ready` may begin before the server listens."""
    address = server.address
    await server.stop()
    waiting = asyncio.create_task(caller.call("wait_until_ready", timeout=10))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    second = ScriptedServer()
    await second.start(address)
    try:
        await second.set_ready(True)
        await asyncio.wait_for(waiting, 5)
    finally:
        await second.stop()


async def test_waiting_in_vain_raises_deadline_exceeded(server: ScriptedServer, caller: Caller) -> None:
    """A server that stays NOT_SERVING raises DeadlineExceeded after the timeout."""
    await server.set_ready(False)
    with pytest.raises(mondrian.DeadlineExceeded, match=r"not ready within 0\.3 s"):
        await caller.call("wait_until_ready", timeout=0.3)
