"""Faults of the log, as callers and operators meet them: nothing is lost in silence, and health says so."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from mondrian import AsyncAnalysisStream, AsyncClient, MondrianError
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.app import LOG_NAME
from mondrian_server.log.sqlite.options import SqliteOptions
from tests.conditions import eventually
from tests.service.calls import Call, Outcome, Running, refused, settings_for, started
from tests.service.programs import program, start

LONGEST = pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=3_900, min_tokens=3_900))
LONG = pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=600, min_tokens=600, temperature=0.8, seed=9))


async def create(up: Running, prompt: str) -> str:
    """Create an analysis that ends soon, and return its name."""
    config = pb.AnalysisConfig(prompt=prompt, sampling=pb.Sampling(max_tokens=1))
    return (await up.create(config)).name


async def fill(up: Running, *, characters: int = 30_000) -> Outcome:
    """Create analyses with prompts of one size until one is refused; those beyond the context end soon."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        for number in range(100):
            await create(up, f"{number} " + "x" * characters)
    return Outcome(error=refusal.value)


async def fill_to_the_last_page(up: Running) -> None:
    """Fill the log until even the events of what runs find no room: what was refused alone leaves some of it."""
    characters = 30_000
    while True:
        await fill(up, characters=characters)
        characters = max(1, characters // 3)
        try:
            await eventually(up.is_serving, within_s=1.5 * SqliteOptions().retry_max_s)
        except TimeoutError:
            return


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
        refusal = await fill(up)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE")
        assert refusal.retry_after_s > 0
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


async def test_a_lost_log_ends_streams_and_cancels(tmp_path: Path) -> None:
    """Nobody waits to a deadline for what cannot come: streams, watches and cancels end with LOG_UNAVAILABLE."""
    async with started(settings_for(tmp_path)) as up:
        call = up.call(LONGEST)
        first = await call.until_token()
        watch = up.watch(first.analysis)
        await watch.until_token()
        (tmp_path / LOG_NAME).unlink()
        for outcome in (await call.outcome(), await watch.outcome()):
            assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE")
            assert outcome.retry_after_s > 0
        request = service_pb.CancelAnalysisRequest(name=first.analysis)
        refusal = await refused(up.analyses.CancelAnalysis(request, timeout=30))
        assert refusal.reason == "LOG_UNAVAILABLE"
        await eventually(lambda: up.service.scheduler.rows_held == 0)


async def test_a_cancel_does_not_wait_for_a_full_disk(tmp_path: Path) -> None:
    """The engine stops at once; that the end cannot be kept is told after five seconds, and made good when it can."""
    async with started(settings_for(tmp_path, log_max_bytes=500_000)) as up:
        await end_some(up)
        names = [(await up.create(LONGEST)).name for _ in range(4)]
        await fill_to_the_last_page(up)
        cancels = [service_pb.CancelAnalysisRequest(name=name) for name in names]
        calls = [up.analyses.CancelAnalysis(each, timeout=30) for each in cancels]
        outcomes = await asyncio.gather(*map(refused, calls))
        assert {outcome.reason for outcome in outcomes} == {"LOG_UNAVAILABLE"}
        await eventually(lambda: up.service.scheduler.rows_held == 0)
        await up.service.log.expire(ended_before_s=time.time() + 60, keep_bytes=0)
        await eventually(up.is_serving)
        for each in cancels:
            assert (await up.analyses.CancelAnalysis(each)).analysis.state == pb.ANALYSIS_STATE_CANCELLED


async def test_clients_go_on_when_the_log_is_back(tmp_path: Path) -> None:
    """The operator puts the file back and starts the server again: the client's stream goes on, with nothing lost."""
    data, away = tmp_path / "data", tmp_path / "away"
    away.mkdir()
    async with program(tmp_path) as server:
        expected = (await server.ask(LONG)).text
        async with AsyncClient(f"127.0.0.1:{server.port}") as client:
            errors: list[MondrianError] = []
            stream = client.analyze(
                "Go on.",
                max_tokens=600,
                min_tokens=600,
                temperature=0.8,
                seed=9,
                on_interruption=lambda error, _: errors.append(error),
            )
            async with stream:
                await anext(aiter(stream))
                reading = asyncio.create_task(_read(stream))
                for file in data.glob(f"{LOG_NAME}*"):
                    file.rename(away / file.name)
                await eventually(lambda: errors)
                server.process.kill()
                await server.process.wait()
                for file in away.iterdir():
                    file.rename(data / file.name)
                again = await start(tmp_path, "--grpc-address", f"127.0.0.1:{server.port}")
                try:
                    await asyncio.wait_for(reading, 60)
                finally:
                    again.kill()
                    await again.wait()
            assert stream.text == expected
            assert errors[0].reason == "LOG_UNAVAILABLE"


async def _read(stream: AsyncAnalysisStream) -> None:
    async for _ in stream:
        pass


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
