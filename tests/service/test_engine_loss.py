"""A lost engine: health says so, a new one serves soon, and every analysis goes on where it stopped."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import psutil
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2

from mondrian.v1 import analysis_pb2 as pb
from tests.conditions import eventually
from tests.service.calls import HEALTH_WATCH, NOT_SERVING, SERVING, Call, Running, settings_for, started

LONG = pb.AnalysisConfig(
    prompt="Go on.",
    sampling=pb.Sampling(max_tokens=700, min_tokens=700, temperature=0.9, seed=11, repetition_penalty=1.1),
    token_detail=pb.TokenDetail(ids=True),
)
SHORT = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3))


@pytest_asyncio.fixture
async def own(tmp_path: Path) -> AsyncGenerator[Running]:
    """A service that the test may harm."""
    async with started(settings_for(tmp_path, slots=8)) as running:
        yield running


class HealthLog:
    """What a health watch has said, in order."""

    def __init__(self, up: Running, service: str) -> None:
        """Begin to watch a service."""
        self.statuses: list[int] = []
        watch = up.channel.unary_stream(
            HEALTH_WATCH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._call = watch(health_pb2.HealthCheckRequest(service=service))
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """End the watch."""
        self._call.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        async for answer in self._call:
            self.statuses.append(answer.status)


@pytest.mark.alone
async def test_eight_streams_continue_on_a_new_engine(own: Running) -> None:
    """After kill -9 health turns and returns within 15 s; all streams go on, and give what they give undisturbed."""
    undisturbed = await own.ask(LONG)
    health = HealthLog(own, "mondrian.v1.AnalysisService")
    calls: list[Call] = [own.call(LONG) for _ in range(8)]
    for call in calls:
        await call.until_token()
    killed_pid = own.service.engine.pid
    assert killed_pid is not None
    os.kill(killed_pid, signal.SIGKILL)
    began = time.monotonic()
    await asyncio.gather(*(call.until(lambda e: e.progress.continuations == 1, within_s=2.0) for call in calls))
    await eventually(own.is_serving, within_s=15.0 - (time.monotonic() - began))
    for call in calls:
        outcome = await call.outcome()
        assert outcome.code is grpc.StatusCode.OK
        assert outcome.ids == undisturbed.ids
        assert outcome.text == outcome.completed.text == undisturbed.text
        assert [event.sequence for event in outcome.events] == list(range(1, len(outcome.events) + 1))
        said = [event for event in outcome.events if event.progress.message.startswith("Continuing")]
        assert len(said) == 1, "one event says that the analysis continues"
        fractions = [event.progress.fraction for event in outcome.events if event.HasField("progress")]
        assert fractions == sorted(fractions)
    assert own.held == (0, 0, 0, 0)
    assert not psutil.pid_exists(killed_pid)
    await eventually(lambda: health.statuses == [SERVING, NOT_SERVING, SERVING])
    await health.close()


async def test_the_waiting_wait_for_the_new_engine(own: Running) -> None:
    """Analyses that had not started notice nothing but the time."""
    running = [own.call(LONG) for _ in range(8)]
    for call in running:
        await call.until_token()
    waiting = [own.call(SHORT) for _ in range(12)]
    for call in waiting:
        await call.until_stage(pb.STAGE_QUEUED)
    assert own.service.engine.pid is not None
    os.kill(own.service.engine.pid, signal.SIGKILL)
    for call in waiting:
        outcome = await call.outcome()
        assert outcome.code is grpc.StatusCode.OK
        assert outcome.stages == sorted(outcome.stages)
        assert outcome.events[-2].progress.continuations == 0
    for call in running:
        assert (await call.outcome()).code is grpc.StatusCode.OK
    await eventually(lambda: own.held == (0, 0, 0, 0))


async def test_health_tells_that_the_model_is_being_loaded(tmp_path: Path) -> None:
    """Before the model is loaded health is NOT_SERVING, the catalogue answers, and an analysis waits for it."""
    async with started(settings_for(tmp_path), ready=False) as up:
        assert not await up.is_serving()
        health = HealthLog(up, "")
        outcome = await up.ask(SHORT)
        assert outcome.code is grpc.StatusCode.OK
        assert pb.STAGE_LOADING_MODEL in outcome.stages
        await eventually(lambda: health.statuses == [NOT_SERVING, SERVING])
        await health.close()
