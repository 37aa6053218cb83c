"""A lost engine: everybody is told at once, and a new one serves soon."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import psutil
import pytest_asyncio
from grpc_health.v1 import health_pb2

from mondrian.v1 import analysis_pb2 as pb
from tests.service.calls import HEALTH_WATCH, NOT_SERVING, SERVING, Call, Running, eventually, settings_for, started

LONG = pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=1800, min_tokens=1800))


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


async def test_eight_streams_end_unavailable_and_a_new_engine_serves(own: Running) -> None:
    """After kill -9 all streams end UNAVAILABLE with RetryInfo within 2 s; health turns, and returns within 15 s."""
    health = HealthLog(own, "mondrian.v1.AnalysisService")
    calls: list[Call] = [own.call(LONG) for _ in range(8)]
    for call in calls:
        await call.until_token()
    killed_pid = own.service.engine.pid
    assert killed_pid is not None
    os.kill(killed_pid, signal.SIGKILL)
    began = time.monotonic()
    outcomes = await asyncio.gather(*(call.outcome() for call in calls))
    assert time.monotonic() - began < 2.0
    for outcome in outcomes:
        assert outcome.code is grpc.StatusCode.UNAVAILABLE
        assert outcome.reason == "ENGINE_LOST"
        assert outcome.retry_after_s > 0
        assert outcome.events[-1].WhichOneof("payload") == "failed"
        assert outcome.text != "", "what was generated before stays"
    await eventually(own.is_serving, within_s=15.0 - (time.monotonic() - began))
    assert own.held == (0, 0, 0, 0)
    assert not psutil.pid_exists(killed_pid)
    assert (await own.ask(pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3)))).error is None
    await eventually(lambda: health.statuses == [SERVING, NOT_SERVING, SERVING])
    await health.close()


async def test_the_waiting_wait_for_the_new_engine(own: Running) -> None:
    """Analyses that had not started are not lost with the engine: they run on the next one."""
    running = [own.call(LONG) for _ in range(8)]
    for call in running:
        await call.until_token()
    short = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3))
    waiting = [own.call(short) for _ in range(20)]
    for call in waiting:
        await call.until_stage(pb.STAGE_QUEUED)
    assert own.service.engine.pid is not None
    os.kill(own.service.engine.pid, signal.SIGKILL)
    outcomes = await asyncio.gather(*(call.outcome() for call in waiting))
    assert {outcome.code for outcome in outcomes} == {grpc.StatusCode.OK}
    for outcome in outcomes:
        assert outcome.stages == sorted(outcome.stages)
    assert any(pb.STAGE_LOADING_MODEL in outcome.stages for outcome in outcomes)
    await eventually(lambda: own.held == (0, 0, 0, 0))


async def test_health_tells_that_the_model_is_being_loaded(tmp_path: Path) -> None:
    """Before the model is loaded health is NOT_SERVING, the catalogue answers, and an analysis waits for it."""
    async with started(settings_for(tmp_path), ready=False) as up:
        assert not await up.is_serving()
        health = HealthLog(up, "")
        outcome = await up.ask(pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3)))
        assert outcome.code is grpc.StatusCode.OK
        assert pb.STAGE_LOADING_MODEL in outcome.stages
        await eventually(lambda: health.statuses == [NOT_SERVING, SERVING])
        await health.close()
