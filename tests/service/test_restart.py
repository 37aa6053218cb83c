"""Restarts: whatever ends the server, the next one continues what was active."""

import signal
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.conditions import eventually
from tests.service.calls import Call
from tests.service.programs import Program, program

SAMPLING = pb.Sampling(max_tokens=500, min_tokens=500, temperature=0.9, top_p=0.95, repetition_penalty=1.1, seed=21)


def config(picture: bytes | None = None) -> pb.AnalysisConfig:
    """Return an analysis of a few seconds, of a picture if one is given."""
    return pb.AnalysisConfig(
        prompt="Describe it in detail.",
        images=[pb.Image(data=picture)] if picture else [],
        sampling=SAMPLING,
        token_detail=pb.TokenDetail(ids=True),
        delivery=pb.Delivery(token_interval=Duration(nanos=50_000_000)),
    )


async def test_a_killed_server_continues_where_it_stopped(tmp_path: Path, picture: bytes) -> None:
    """After kill -9 and a new start the numbering goes on, nothing that was seen changes, and the text is the same."""
    async with program(tmp_path) as first:
        expected = [await first.ask(config(asked)) for asked in (picture, None)]
        names = [(await first.create(config(asked))).name for asked in (picture, None)]
        calls = [first.watch(name) for name in names]
        for call in calls:
            await call.until(lambda event: event.token.first_index > 20)
        first.process.kill()
        seen = [await call.outcome() for call in calls]
    async with program(tmp_path) as second:
        for name, before, undisturbed in zip(names, seen, expected, strict=True):
            assert before.code is grpc.StatusCode.UNAVAILABLE
            rest = await second.watched(name, before.events[-1].sequence)
            events = [*before.events, *rest.events]
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert [id_ for event in events for id_ in event.token.ids] == undisturbed.ids
            assert "".join(event.token.text for event in events) == undisturbed.text == rest.completed.text
            assert max(event.progress.continuations for event in events) == 1
            assert (await second.watched(name)).events == events, "the log holds what was seen"


async def test_sigterm_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    """What outlasts the grace is checkpointed: its stream ends SHUTTING_DOWN, and the next start continues it."""
    async with program(tmp_path, "--shutdown-grace-s", "0.2") as first:
        name = (await first.create(config())).name
        call = first.watch(name)
        await call.until_token()
        first.process.send_signal(signal.SIGTERM)
        before = await call.outcome()
        assert (before.code, before.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert before.retry_after_s > 0
        assert await first.ended(within_s=5.0) == 0
    async with program(tmp_path) as second:
        after = await second.watched(name, before.events[-1].sequence)
        assert before.text + after.text == after.completed.text
        assert len(before.ids) + len(after.ids) == 500


async def test_a_time_limit_goes_on_while_the_server_is_down(tmp_path: Path) -> None:
    """A deadline that passes between two lives of the server ends the analysis with what there was."""
    asked = config()
    asked.sampling.max_tokens = asked.sampling.min_tokens = 4000
    asked.time_limit.CopyFrom(Duration(seconds=2))
    async with program(tmp_path) as first:
        name = (await first.create(asked)).name
        call = first.watch(name)
        await call.until_token()
        first.process.kill()
        before = await call.outcome()
    async with program(tmp_path) as second:
        after = await second.watched(name, before.events[-1].sequence)
        assert after.completed.finish_reason == pb.FINISH_REASON_DEADLINE
        assert after.completed.text.startswith(before.text)


@pytest.mark.alone
async def test_a_dropped_call_gets_its_grace_anew_after_a_restart(tmp_path: Path) -> None:
    """An Analyze whose server died has its whole grace on the next one; without a grace it is cancelled at once."""
    async with program(tmp_path) as first:
        calls = [_analyze(first, grace_s=grace_s) for grace_s in (0, 600)]
        names = [(await call.until_token()).analysis for call in calls]
        first.process.kill()
        for call in calls:
            await call.outcome()
    async with program(tmp_path) as second:
        await eventually(lambda: _state_is(second, names[0], pb.ANALYSIS_STATE_CANCELLED), within_s=2.0)
        assert await _state_is(second, names[1], pb.ANALYSIS_STATE_ACTIVE)


def _analyze(up: Program, *, grace_s: int) -> Call:
    asked = config()
    asked.sampling.max_tokens = asked.sampling.min_tokens = 2500
    request = service_pb.AnalyzeRequest(config=asked, disconnect_grace=Duration(seconds=grace_s))
    return Call(up.analyses.Analyze(request))


async def _state_is(up: Program, name: str, state: int) -> bool:
    return (await up.get(name)).state == state
