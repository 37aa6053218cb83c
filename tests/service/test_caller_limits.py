"""Limits of callers: how much one may have, and what it is told beyond that, over real sockets."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.callers import CallerLimits
from mondrian_server.callers.editing import add_key
from tests.conditions import eventually
from tests.service.calls import Connection, Outcome, Running, settings_for, started

RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
SHORT = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=2))
ENDLESS = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=1500, min_tokens=1500))


@asynccontextmanager
async def house(
    folder: Path, limits: CallerLimits, **settings: Any
) -> AsyncGenerator[tuple[Running, Connection, Connection]]:
    """Run a service and give it with Bob, who has limits, and Carol, who has the settings' ones."""
    bob, carol = (
        add_key(folder / "keys.toml", name, own).text for name, own in (("bob", limits), ("carol", CallerLimits()))
    )
    async with started(settings_for(folder / "data", keys_file=folder / "keys.toml", **settings)) as up:
        yield up, up.by(bob), up.by(carol)


def refusal(outcome: Outcome) -> tuple[grpc.StatusCode, str]:
    """Return code and reason of a call that was refused, which says when to come back."""
    assert outcome.retry_after_s > 0
    return outcome.code, outcome.reason


async def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    """The limit is the settings', or the caller's own; others, and what makes no analysis, are not touched by it."""
    limits = CallerLimits(max_requests_per_minute=3)
    async with house(tmp_path, limits, max_caller_requests_per_minute=5) as (up, bob, carol):
        outcomes = [await bob.ask(SHORT) for _ in range(4)]
        assert [outcome.code for outcome in outcomes[:3]] == [grpc.StatusCode.OK] * 3
        assert refusal(outcomes[3]) == (RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS")
        assert 1 < outcomes[3].retry_after_s <= 60
        listing = await up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(), metadata=bob.metadata)
        assert len(listing.analyses) == 3
        codes = [(await carol.ask(SHORT)).code for _ in range(6)]
        assert codes == [*[grpc.StatusCode.OK] * 5, RESOURCE_EXHAUSTED]


async def test_a_repeated_request_is_no_request_more(tmp_path: Path) -> None:
    """A client that lost the answer may ask for it again, however often."""
    async with house(tmp_path, CallerLimits(max_requests_per_minute=1)) as (_, bob, _):
        request_id = "11111111-1111-4111-8111-111111111111"
        created = [await bob.create(SHORT, request_id=request_id) for _ in range(3)]
        assert len({analysis.name for analysis in created}) == 1
        assert refusal(await bob.ask(SHORT)) == (RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS")


async def test_a_caller_at_its_running_limit_waits_and_holds_up_nobody(tmp_path: Path) -> None:
    """Its second analysis stays in the queue beside free slots, others pass it, and it starts when the first ends."""
    async with house(tmp_path, CallerLimits(max_running_analyses=1), slots=4) as (_, bob, carol):
        first = bob.call(ENDLESS)
        await first.until_token()
        second = bob.call(ENDLESS)
        await second.until_stage(pb.STAGE_QUEUED)
        assert (await carol.ask(SHORT)).completed
        assert second.sequence <= 3 and not first.ended
        first.cancel()
        await second.until_token()
        second.cancel()


@pytest.mark.parametrize(
    ("limit", "reason"),
    [({"max_waiting_analyses": 2}, "TOO_MANY_ANALYSES"), ({"max_waiting_bytes": 15_000}, "TOO_MANY_BYTES")],
    ids=["analyses", "bytes"],
)
async def test_who_has_too_much_waiting_is_told_so(
    tmp_path: Path, picture: bytes, limit: dict[str, int], reason: str
) -> None:
    """A third beside two that wait is refused at once, and taken when there is room again."""
    assert 5000 < len(picture) < 7500
    config = pb.AnalysisConfig(images=[pb.Image(data=picture)])
    config.MergeFrom(ENDLESS)
    async with house(tmp_path, CallerLimits(max_running_analyses=1, **limit)) as (up, bob, carol):
        running = bob.call(ENDLESS)
        await running.until_token()
        waiting = [bob.call(config), bob.call(config)]
        for call in waiting:
            await call.until_stage(pb.STAGE_QUEUED)
        assert refusal(await bob.ask(config)) == (RESOURCE_EXHAUSTED, reason)
        assert (await carol.ask(SHORT)).completed
        waiting.pop().cancel()
        await eventually(lambda: up.service.scheduler.waiting == 1)
        again = bob.call(config)
        await again.until_stage(pb.STAGE_QUEUED)
        for call in (running, *waiting, again):
            call.cancel()
