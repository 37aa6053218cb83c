"""Deadlines: what was generated in time is delivered in time."""

import io
import os
import signal
import time
from collections.abc import AsyncGenerator

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from PIL import Image

from mondrian.v1 import analysis_pb2 as pb
from tests.conditions import eventually
from tests.service.calls import Running, settings_for, started

pytestmark = pytest.mark.alone

LONG = pb.Sampling(max_tokens=3_900, min_tokens=3_900)
MARGIN_S = 1.0
"""More than by default, so that a machine that stands still for a moment does not decide a test."""


@pytest_asyncio.fixture(scope="module")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A service with one slot, so that the second analysis waits."""
    settings = settings_for(tmp_path_factory.mktemp("data"), slots=1, lookahead=0, deadline_margin_s=MARGIN_S)
    async with started(settings) as running:
        yield running


def seconds(value: float) -> Duration:
    """Return a duration."""
    return Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


def seconds_given(accepted: pb.Event) -> float:
    """Return how long after its acceptance an analysis is to be ended at the latest."""
    return (accepted.accepted.deadline_time.ToDatetime() - accepted.create_time.ToDatetime()).total_seconds()


async def test_the_call_deadline_delivers_what_there_is(small: Running) -> None:
    """A call with tokens when its deadline comes gets them, and `completed` with DEADLINE, before it."""
    began = time.monotonic()
    outcome = await small.ask(pb.AnalysisConfig(prompt="Go on.", sampling=LONG), timeout_s=4 * MARGIN_S)
    assert time.monotonic() - began < 4 * MARGIN_S
    assert outcome.code is grpc.StatusCode.OK
    assert outcome.completed.finish_reason == pb.FINISH_REASON_DEADLINE
    assert outcome.text == outcome.completed.text != ""
    assert outcome.completed.usage.output_tokens > 0
    await eventually(lambda: small.held == (0, 0, 0, 0))


async def test_the_callers_own_deadline_counts(small: Running) -> None:
    """Also where gRPC tells the server of a later one: it sends a longer timeout of the same connection again."""
    config = pb.AnalysisConfig(prompt="Go on.", sampling=LONG)
    calls = [small.call(config, timeout_s=timeout_s) for timeout_s in (102.0, 100.0)]
    _, given_s = [seconds_given(await call.until(lambda event: event.HasField("accepted"))) for call in calls]
    assert 0.95 * 100.0 - MARGIN_S < given_s < 100.0 - MARGIN_S
    for call in calls:
        call.cancel()
    await eventually(lambda: small.held == (0, 0, 0, 0))


async def test_the_time_limit_does_the_same(small: Running) -> None:
    """A time_limit ends an analysis as a deadline does, queue included, and `accepted` says when."""
    config = pb.AnalysisConfig(prompt="Go on.", sampling=LONG, time_limit=seconds(1.0))
    outcome = await small.ask(config)
    assert outcome.completed.finish_reason == pb.FINISH_REASON_DEADLINE
    assert outcome.completed.timings.total.ToNanoseconds() / 1e9 == pytest.approx(1.0, abs=0.5)
    assert seconds_given(outcome.events[0]) == pytest.approx(1.0, abs=0.1)


async def test_a_deadline_in_the_queue_is_deadline_exceeded(small: Running) -> None:
    """An analysis that still waits when its time is over ends DEADLINE_EXCEEDED and leaves the queue."""
    running = small.call(pb.AnalysisConfig(prompt="Go on.", sampling=LONG))
    await running.until_token()
    for outcome in (
        await small.ask(pb.AnalysisConfig(prompt="Me too.", time_limit=seconds(0.3))),
        await small.ask(pb.AnalysisConfig(prompt="And me."), timeout_s=4 * MARGIN_S),
    ):
        assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert outcome.reason == "DEADLINE_EXCEEDED"
        assert outcome.events[-1].failed.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert small.service.scheduler.waiting == 0
    running.cancel()
    await eventually(lambda: small.held == (0, 0, 0, 0))


async def test_a_deadline_while_preparing_is_deadline_exceeded(small: Running) -> None:
    """An analysis whose image is still being decoded when its time is over ends DEADLINE_EXCEEDED."""
    buffer = io.BytesIO()
    Image.new("RGB", (7000, 7000), (10, 90, 200)).save(buffer, "PNG", compress_level=1)
    config = pb.AnalysisConfig(prompt="Look.", images=[pb.Image(data=buffer.getvalue())], time_limit=seconds(0.1))
    outcome = await small.ask(config)
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcome.text == ""
    await eventually(lambda: small.held == (0, 0, 0, 0))


async def test_a_deadline_passes_while_the_engine_is_stopped(small: Running) -> None:
    """The deadline is the server's own: it comes although the engine stands still."""
    call = small.call(pb.AnalysisConfig(prompt="Go on.", sampling=LONG, time_limit=seconds(1.5)))
    await call.until_token()
    pid = small.service.engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        outcome = await call.outcome()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert outcome.completed.finish_reason == pb.FINISH_REASON_DEADLINE
    assert outcome.text == outcome.completed.text != ""
    await eventually(lambda: small.held == (0, 0, 0, 0))
