"""Poison: an analysis that kills the engine is found and ended; what ran beside it completes."""

import asyncio
from pathlib import Path

import grpc

from mondrian.v1 import analysis_pb2 as pb
from tests.conditions import eventually
from tests.scripted_engine import Life, command, starts
from tests.service.calls import Running, settings_for, started

WHOLE = "".join(f"t{number} " for number in range(1, 61))


async def test_the_poisonous_one_fails_after_three_crashes_and_seven_innocents_complete(tmp_path: Path) -> None:
    """Two crashes beside the others and one alone end it, ENGINE_CRASHED; the others get their whole text."""
    settings = settings_for(tmp_path, slots=8, engine_restart_backoff_s=0.05)
    engine = command([Life(tokens=60, deadly_word="arsenic")], tmp_path / "starts")
    async with started(settings, engine_command=engine) as up:
        innocents = [up.call(_asking(f"innocent {number}")) for number in range(7)]
        for call in innocents:
            await call.until_token()
        poison = up.call(_asking("some arsenic"))
        outcome, *others = await asyncio.gather(poison.outcome(), *(call.outcome() for call in innocents))
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.INTERNAL, "ENGINE_CRASHED")
        assert "3 times" in outcome.message
        assert outcome.text == ""
        assert outcome.events[-1].failed.usage.output_tokens == 0
        assert outcome.events[-2].progress.continuations == 2, "nothing promises that it goes on after the third"
        for other in others:
            assert other.code is grpc.StatusCode.OK
            assert other.text == other.completed.text == WHOLE
            assert [event.sequence for event in other.events] == list(range(1, len(other.events) + 1))
            continuations = max(event.progress.continuations for event in other.events)
            assert continuations <= 2, "it ran alone when it crashed the engine for the third time"
        await eventually(up.is_serving)
        assert starts(tmp_path / "starts") == 4, "three crashes and no more"
        assert up.held == (0, 0, 0, 0)
        await _stays_failed(up, outcome.events[0].analysis)
        assert (await up.ask(_asking("after"))).completed.text == WHOLE


async def _stays_failed(up: Running, name: str) -> None:
    """A poll and a later watch tell the same end, and nothing starts it again."""
    analysis = await up.get(name)
    assert analysis.state == pb.ANALYSIS_STATE_FAILED
    assert analysis.failed.error.code == grpc.StatusCode.INTERNAL.value[0]
    again = await up.watched(name)
    assert again.code is grpc.StatusCode.OK
    assert again.events[-1].failed == analysis.failed


def _asking(prompt: str) -> pb.AnalysisConfig:
    return pb.AnalysisConfig(prompt=prompt)
