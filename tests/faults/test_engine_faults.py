"""An engine that hangs, crashes or cannot load, as callers of the service meet it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import psutil
import pytest

from mondrian.v1 import analysis_pb2 as pb
from mondrian_server.errors import StartupError
from tests.conditions import eventually
from tests.scripted_engine import Fault, Life, command, starts
from tests.service.calls import Running, settings_for, started

SLOW = Life(tokens=10_000, step_s=0.02)


@contextlib.asynccontextmanager
async def serving(folder: Path, *lives: Life, ready: bool = True, **changes: object) -> AsyncGenerator[Running]:
    """Run the service over a scripted engine with two slots; afterwards no process of it may be left."""
    settings = settings_for(
        folder,
        **{"slots": 2, "lookahead": 0, "engine_operation_limit_s": 0.5, "engine_restart_backoff_s": 0.05} | changes,
    )
    before = set(psutil.Process().children(recursive=True))
    async with started(settings, engine_command=command(lives, folder / "starts"), ready=ready) as up:
        yield up
    assert set(psutil.Process().children(recursive=True)) <= before, "a process was left behind"


def asking(prompt: str = "?", **fields: object) -> pb.AnalysisConfig:
    """Return a request."""
    return pb.AnalysisConfig(prompt=prompt, **fields)  # type: ignore[arg-type]  # each test names real fields


async def test_what_a_hung_engine_had_goes_on_with_the_next(tmp_path: Path) -> None:
    """Running streams go on after their last token, and what waited runs; nobody sees an error."""
    hanging = Life(tokens=200, step_s=0.02, fault=Fault(what="hang", at="tokens", tokens=100))
    async with serving(tmp_path, hanging, Life(tokens=200)) as up:
        calls = [up.call(asking(str(number))) for number in range(3)]
        outcomes = [await call.outcome() for call in calls]
        for outcome in outcomes:
            assert outcome.completed.text == outcome.text == "".join(f"t{number} " for number in range(1, 201))
            assert outcome.completed.usage.output_tokens == 200
        assert [max(event.progress.continuations for event in outcome.events) for outcome in outcomes] == [1, 1, 0]
        assert up.held == (0, 0, 0, 0)
        assert starts(tmp_path / "starts") == 2


async def test_health_turns_while_a_silent_engine_is_replaced(tmp_path: Path) -> None:
    """From the loss until the next engine is ready the service is NOT_SERVING."""
    silent = Life(tokens=10_000, fault=Fault(what="silence", at="tokens", tokens=2))
    async with serving(tmp_path, silent, Life(load_s=0.5), engine_beat_timeout_s=0.6) as up:
        call = up.call(asking())
        await call.until(lambda event: event.progress.continuations == 1)
        assert not await up.is_serving()
        await eventually(up.is_serving)
        assert (await call.outcome()).code is grpc.StatusCode.OK


async def test_an_engine_that_cannot_be_started_refuses_who_comes_and_keeps_who_waits(tmp_path: Path) -> None:
    """After several failed starts new analyses are refused with a time to come back; those accepted wait on."""
    lives = [Life(fault=Fault(what="exit", at="load"))] * 5
    async with serving(tmp_path, *lives, Life(tokens=2), ready=False, engine_restart_backoff_max_s=0.5) as up:
        waiting = up.call(asking())
        await eventually(lambda: up.service.engine.status.failures >= 3)
        refused = await up.ask(asking())
        assert refused.reason == "ENGINE_UNAVAILABLE"
        assert refused.retry_after_s > 0
        assert refused.events == []
        assert not await up.is_serving()
        assert (await waiting.outcome()).completed.text == "t1 t2 "


async def test_a_model_that_is_gone_for_a_while_comes_back(tmp_path: Path) -> None:
    """A load that fails after the engine had been ready is tried again; who waits is served then."""
    lives = (
        Life(fault=Fault(what="crash", at="ready", after_s=0.3)),
        Life(fault=Fault(what="load_failed", at="load")),
        Life(tokens=2),
    )
    async with serving(tmp_path, *lives) as up:
        await eventually(lambda: up.service.engine.restarts == 1)
        outcome = await up.ask(asking())
        assert outcome.completed.text == "t1 t2 "
        assert starts(tmp_path / "starts") == 3


async def test_a_first_model_that_cannot_be_loaded_ends_the_service(tmp_path: Path) -> None:
    """The service ends with the engine's message, which becomes the operator's one line."""
    failing = Life(fault=Fault(what="load_failed", at="start", message="there is no model 'x'"))
    async with serving(tmp_path, failing, ready=False) as up:
        with pytest.raises(StartupError, match="there is no model 'x'"):
            await asyncio.wait_for(up.service.ended(), 20)


async def test_the_service_ends_promptly_over_a_hung_engine(tmp_path: Path) -> None:
    """Open streams and an engine that does nothing more do not hold up the end."""
    hanging = Life(tokens=10_000, fault=Fault(what="hang", at="tokens", tokens=5))
    loop = asyncio.get_running_loop()
    async with serving(tmp_path, hanging, engine_operation_limit_s=600.0) as up:
        calls = [up.call(asking()) for _ in range(3)]
        await calls[0].until_token()
        await asyncio.wait_for(up.service.analyses.drain(0.2), 10)
        for call in calls:
            outcome = await call.outcome()
            assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        began = loop.time()
    assert loop.time() - began < 10


async def test_tokens_at_a_known_rate_are_delivered_by_interval_and_deadline(tmp_path: Path) -> None:
    """At 50 tokens a second and an interval of 0.2 s, events cover about ten tokens each, and the deadline ends it."""
    async with serving(tmp_path, SLOW) as up:
        config = asking()
        config.delivery.token_interval.FromMilliseconds(200)
        config.time_limit.FromMilliseconds(1500)
        outcome = await up.ask(config)
    tokens = [event.token for event in outcome.events if event.HasField("token")]
    assert outcome.completed.finish_reason == pb.FINISH_REASON_DEADLINE
    assert [token.first_index for token in tokens] == [
        sum(t.token_count for t in tokens[:i]) for i in range(len(tokens))
    ]
    count = sum(token.token_count for token in tokens)
    assert outcome.completed.usage.output_tokens == count
    assert outcome.text == outcome.completed.text == "".join(f"t{number} " for number in range(1, count + 1))
    assert tokens[0].token_count == 1
    assert len(tokens) <= 1.5 / 0.2 + 2


async def test_callers_that_vanish_while_the_engine_hangs_leave_nothing(tmp_path: Path) -> None:
    """Cancelled in the queue and while generating, they hold no place once the engine is replaced."""
    hanging = Life(tokens=10_000, fault=Fault(what="hang", at="tokens", tokens=2))
    async with serving(tmp_path, hanging, Life(), engine_operation_limit_s=2.0) as up:
        calls = [up.call(asking(str(number))) for number in range(20)]
        await calls[0].until_token()
        await eventually(lambda: up.service.engine.beat.operation_s > 0.1)
        for call in calls:
            call.cancel()
        for call in calls:
            assert (await call.outcome()).code is grpc.StatusCode.CANCELLED
        await eventually(lambda: up.held == (0, 0, 0, 0))
