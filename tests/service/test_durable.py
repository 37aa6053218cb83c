"""Durable analyses: created, watched, polled, repeated, cancelled and deleted over any number of connections."""

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.conditions import eventually
from tests.service.calls import Call, Running, refused, settings_for, started

LONG = pb.Sampling(max_tokens=400, min_tokens=400, temperature=0.8, seed=3)
OFTEN = pb.Delivery(token_interval=Duration(nanos=20_000_000), progress_interval=Duration(nanos=200_000_000))


@pytest_asyncio.fixture(scope="module")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A service with an empty log."""
    async with started(settings_for(tmp_path_factory.mktemp("data"))) as running:
        yield running


def long_config(**changes: object) -> pb.AnalysisConfig:
    """Return an analysis that goes on for a good second."""
    return pb.AnalysisConfig(prompt="Go on.", sampling=LONG, delivery=OFTEN, **changes)  # pyright: ignore[reportArgumentType]  # fields by name


def short_config() -> pb.AnalysisConfig:
    """Return an analysis of a few tokens."""
    return pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=4))


async def test_a_created_analysis_runs_without_anybody(own: Running) -> None:
    """CreateAnalysis returns at once; polling shows state, stage, text and result, and so does a later watch."""
    created = await own.create(long_config())
    assert created.state == pb.ANALYSIS_STATE_ACTIVE
    await eventually(lambda: _has_text(own, created.name))
    half_way = await own.get(created.name)
    assert half_way.progress.stage == pb.STAGE_GENERATING
    assert half_way.progress.message.startswith("Generating analysis...")
    await eventually(lambda: _has_state(own, created.name, pb.ANALYSIS_STATE_COMPLETED))
    done = await own.get(created.name)
    assert done.text.startswith(half_way.text)
    assert done.completed.finish_reason == pb.FINISH_REASON_MAX_TOKENS
    assert done.completed.usage.output_tokens == 400
    assert done.end_time.ToDatetime() > done.create_time.ToDatetime()
    assert done.config.prompt == "Go on."
    assert done.config.sampling.seed == 3
    outcome = await own.watched(created.name)
    assert outcome.text == done.text
    assert outcome.code is grpc.StatusCode.OK


async def _has_text(up: Running, name: str) -> bool:
    return (await up.get(name)).text != ""


async def _has_state(up: Running, name: str, state: int) -> bool:
    return (await up.get(name)).state == state


async def test_a_watch_after_any_sequence_is_the_rest(own: Running) -> None:
    """A watch after a sequence gives exactly the events that follow it; after the last one it ends at once."""
    created = await own.create(long_config())
    whole = await own.watched(created.name)
    for after in (0, 1, len(whole.events) // 2, len(whole.events) - 1, len(whole.events)):
        rest = await own.watched(created.name, after)
        assert rest.events == whole.events[after:]
        assert rest.code is grpc.StatusCode.OK


async def test_a_thousand_reconnects_lose_and_double_nothing(own: Running) -> None:
    """Watchers that disconnect at random and come back after their last sequence see each event once."""
    created = await own.create(
        pb.AnalysisConfig(
            prompt="Go on.",
            sampling=LONG,
            delivery=pb.Delivery(token_interval=Duration(), progress_interval=Duration(nanos=100_000_000)),
        ),
    )
    chance = random.Random(5)  # moments, not secrets
    seen = await asyncio.gather(*(_in_pieces(own, created.name, chance) for _ in range(20)))
    whole = await own.watched(created.name)
    assert sum(pieces for _, pieces in seen) >= 1000
    for events, _ in seen:
        assert events == whole.events
    text = "".join(event.token.text for event in seen[0][0])
    assert text == whole.events[-1].completed.text


async def _in_pieces(up: Running, name: str, chance: random.Random) -> tuple[list[pb.Event], int]:
    """Read a stream in many short connections; return its events and the number of connections."""
    events: list[pb.Event] = []
    pieces = 0
    while not events or not _is_terminal(events[-1]):
        pieces += 1
        call = up.analyses.WatchAnalysis(
            service_pb.WatchAnalysisRequest(name=name, after_sequence=events[-1].sequence if events else 0)
        )
        wanted = chance.randint(1, 10)
        async for response in call:
            events.append(response.event)
            wanted -= 1
            if not wanted:
                break
        call.cancel()
    return events, pieces


def _is_terminal(event: pb.Event) -> bool:
    return event.WhichOneof("payload") in ("completed", "failed", "cancelled")


async def test_two_hundred_watchers_and_a_slow_one_all_get_everything(own: Running) -> None:
    """Many watchers of one analysis see the same events, and one that hardly reads holds up nobody."""
    created = await own.create(long_config())
    slow = own.analyses.WatchAnalysis(service_pb.WatchAnalysisRequest(name=created.name))
    calls = [own.watch(created.name) for _ in range(200)]
    outcomes = [await call.outcome() for call in calls]
    assert all(outcome.events == outcomes[0].events for outcome in outcomes)
    assert outcomes[0].completed.usage.output_tokens == 400
    late = [response.event async for response in slow]
    assert late == outcomes[0].events


async def test_ending_a_watch_never_cancels(own: Running) -> None:
    """An analysis goes on when its only watcher leaves."""
    created = await own.create(long_config())
    call = own.watch(created.name)
    await call.until_token()
    call.cancel()
    await eventually(lambda: _has_state(own, created.name, pb.ANALYSIS_STATE_COMPLETED))


@pytest.mark.alone
async def test_a_dropped_call_is_cancelled_after_its_grace_unless_somebody_watches(own: Running) -> None:
    """Without a grace a dropped Analyze is cancelled at once; with one only if nobody watches when it is over."""
    abandoned, kept = (_analyze(own, grace_s=0.5) for _ in range(2))
    at_once = _analyze(own, grace_s=0.0)
    names = [(await call.until_token()).analysis for call in (at_once, abandoned, kept)]
    watcher = own.watch(names[2])
    await watcher.until_token()
    for call in (at_once, abandoned, kept):
        call.cancel()
    await eventually(lambda: _has_state(own, names[0], pb.ANALYSIS_STATE_CANCELLED), within_s=0.5)
    assert (await own.get(names[1])).state == pb.ANALYSIS_STATE_ACTIVE, "the grace is not over"
    await eventually(lambda: _has_state(own, names[1], pb.ANALYSIS_STATE_CANCELLED), within_s=5)
    assert (await watcher.outcome()).completed.finish_reason == pb.FINISH_REASON_MAX_TOKENS


def _analyze(up: Running, *, grace_s: float) -> Call:
    grace = Duration(seconds=int(grace_s), nanos=int(grace_s % 1 * 1e9))
    config = pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=1200, min_tokens=1200), delivery=OFTEN)
    return Call(up.analyses.Analyze(service_pb.AnalyzeRequest(config=config, disconnect_grace=grace)))


async def test_cancel_ends_and_keeps_the_partial_text(own: Running) -> None:
    """CancelAnalysis ends an active analysis, whose text stays; an ended one is left as it is."""
    created = await own.create(long_config())
    call = own.watch(created.name)
    await call.until_token()
    request = service_pb.CancelAnalysisRequest(name=created.name)
    cancelled = (await own.analyses.CancelAnalysis(request)).analysis
    assert cancelled.state == pb.ANALYSIS_STATE_CANCELLED
    outcome = await call.outcome()
    assert outcome.code is grpc.StatusCode.OK, "a watch ends OK after any terminal event"
    assert outcome.events[-1].cancelled.stage == pb.STAGE_GENERATING
    assert cancelled.text == outcome.text != ""
    assert (await own.analyses.CancelAnalysis(request)).analysis == cancelled


async def test_delete_forgets_an_ended_analysis(own: Running) -> None:
    """An active analysis cannot be deleted; an ended one can, and is not found from then on."""
    created = await own.create(long_config())
    request = service_pb.DeleteAnalysisRequest(name=created.name)
    error = await refused(own.analyses.DeleteAnalysis(request))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ANALYSIS_ACTIVE")
    await own.analyses.CancelAnalysis(service_pb.CancelAnalysisRequest(name=created.name))
    await own.analyses.DeleteAnalysis(request)
    for call in (
        own.get(created.name),
        own.analyses.DeleteAnalysis(request),
        own.analyses.CancelAnalysis(service_pb.CancelAnalysisRequest(name=created.name)),
    ):
        gone = await refused(call)
        assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "ANALYSIS_NOT_FOUND")
    assert (await own.watched(created.name)).reason == "ANALYSIS_NOT_FOUND"


async def test_fifty_callers_with_one_request_id_make_one_analysis(own: Running) -> None:
    """The same request under the same id is one analysis, whoever asks, and however; other content is refused."""
    config = short_config()
    config.sampling.temperature = 1.5
    created = await asyncio.gather(*(own.create(config, request_id="one-of-fifty") for _ in range(50)))
    assert len({analysis.name for analysis in created}) == 1
    attached = Call(own.analyses.Analyze(service_pb.AnalyzeRequest(config=config, request_id="one-of-fifty")))
    outcome = await attached.outcome()
    assert outcome.events[0].analysis == created[0].name
    assert [event.sequence for event in outcome.events] == list(range(1, len(outcome.events) + 1))
    config.prompt = "Something else"
    error = await refused(own.create(config, request_id="one-of-fifty"))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    assert error.field_at_fault == "request_id"


async def test_a_list_has_pages_newest_first_and_filters(tmp_path: Path) -> None:
    """ListAnalyses pages from the newest to the oldest, and shows only the states that were asked for."""
    async with started(settings_for(tmp_path)) as up:
        names = [(await up.create(short_config())).name for _ in range(5)]
        for name in names:
            await up.watched(name)
        active = await up.create(
            pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=1500, min_tokens=1500))
        )
        first = await up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(page_size=4))
        second = await up.analyses.ListAnalyses(
            service_pb.ListAnalysesRequest(page_size=4, page_token=first.next_page_token)
        )
        listed = [analysis.name for analysis in (*first.analyses, *second.analyses)]
        assert listed == [active.name, *reversed(names)]
        assert second.next_page_token == ""
        completed = service_pb.ListAnalysesRequest(states=[pb.ANALYSIS_STATE_COMPLETED])
        assert len((await up.analyses.ListAnalyses(completed)).analyses) == 5
        error = await refused(up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(page_size=-1)))
        assert error.field_at_fault == "page_size"


async def test_expired_events_are_told_so(tmp_path: Path) -> None:
    """Once its events are deleted, an analysis is still shown, and a watch of it is FAILED_PRECONDITION."""
    async with started(settings_for(tmp_path)) as up:
        name = (await up.create(short_config())).name
        end = (await up.watched(name)).events[-1].create_time.ToNanoseconds() / 1e9
        await up.service.log.expire(ended_before_s=end + 0.001, keep_bytes=1 << 40)
        outcome = await up.watched(name)
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EVENTS_EXPIRED")
        shown = await up.get(name)
        assert shown.expired
        assert shown.state == pb.ANALYSIS_STATE_COMPLETED
        assert shown.text == ""
        assert not shown.HasField("config")


async def test_nobody_writes_to_a_closed_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A service that ends without a drain, as one without a model does, puts away what is active; no timer is left."""
    async with started(settings_for(tmp_path)) as up:
        name = (await up.create(long_config())).name
        await eventually(lambda: _has_text(up, name))
    await asyncio.sleep(3 * OFTEN.progress_interval.ToTimedelta().total_seconds())
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]
