"""Faults of the log, as callers and operators meet them: nothing is lost in silence, and health says so."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.app import LOG_NAME
from tests.service.calls import Call, Outcome, Running, eventually, settings_for, started
from tests.service.programs import start

LONG = pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=600, min_tokens=600, temperature=0.8, seed=9))


async def create(up: Running, prompt: str) -> str:
    """Create an analysis that ends soon, and return its name."""
    config = pb.AnalysisConfig(prompt=prompt, sampling=pb.Sampling(max_tokens=1))
    return (await up.analyses.CreateAnalysis(service_pb.CreateAnalysisRequest(config=config))).analysis.name


async def fill(up: Running) -> Outcome:
    """Create analyses with prompts beyond the context, which end soon, until one is refused; return the refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        for number in range(100):
            await create(up, f"{number} " + "x" * 30_000)
    return Outcome(error=refusal.value)


async def end_some(up: Running) -> None:
    """Leave large analyses in the log that have ended: what expiry can take when the log is full."""
    for number in range(6):
        outcome = await up.ask(pb.AnalysisConfig(prompt=f"{number} " + "y" * 30_000))
        assert outcome.reason == "CONTEXT_EXCEEDED"


async def is_down(up: Running) -> bool:
    """Ask health whether the service is not serving."""
    return not await up.is_serving()


async def test_a_full_log_refuses_who_comes_and_loses_nothing(tmp_path: Path) -> None:
    """While the log is full, analyses are refused and streams stand still; with room again everything goes on."""
    async with started(settings_for(tmp_path, log_max_bytes=500_000)) as up:
        expected = (await up.ask(LONG)).text
        await end_some(up)
        call = Call(up.analyses.Analyze(service_pb.AnalyzeRequest(config=LONG)))
        await call.until_token()
        refused = await fill(up)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE")
        assert refused.retry_after_s > 0
        await eventually(lambda: is_down(up))
        await up.service.log.expire(ended_before_s=time.time() + 60, keep_bytes=0)
        await eventually(up.is_serving)
        outcome = await call.outcome()
        assert outcome.completed.text == outcome.text == expected
        assert [event.sequence for event in outcome.events] == list(range(1, len(outcome.events) + 1))
        await create(up, "There is room again.")


async def test_a_removed_log_is_noticed(tmp_path: Path) -> None:
    """When the log's file goes, health turns, and nobody is promised what cannot be kept."""
    async with started(settings_for(tmp_path)) as up:
        await create(up, "Before.")
        for ending in ("", "-wal"):
            (tmp_path / f"{LOG_NAME}{ending}").unlink()
        await eventually(lambda: _is_refused(up))
        await eventually(lambda: is_down(up))


async def _is_refused(up: Running) -> bool:
    try:
        await create(up, "After.")
    except grpc.aio.AioRpcError as error:
        return Outcome(error=error).reason == "LOG_UNAVAILABLE"
    return False


async def test_a_damaged_log_stops_the_start_and_stays_as_it_is(tmp_path: Path) -> None:
    """A log whose bytes were overwritten is told in one line, with status 1, and is never overwritten."""
    data = tmp_path / "data"
    async with started(settings_for(data)) as up:
        for number in range(20):
            await create(up, f"{number} " + "x" * 2_000)
    damaged = bytearray((data / LOG_NAME).read_bytes())
    damaged[: len(damaged) // 2] = b"\xa5" * (len(damaged) // 2)
    (data / LOG_NAME).write_bytes(damaged)
    process = await start(tmp_path, "--grpc-address", "127.0.0.1:0")
    await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    (line,) = [line for line in (tmp_path / "stderr").read_text().splitlines() if not line.startswith("{")]
    assert line.startswith("mondrian: ")
    assert LOG_NAME in line
    assert (data / LOG_NAME).read_bytes() == bytes(damaged)
