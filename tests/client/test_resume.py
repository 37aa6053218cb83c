"""Resuming: whatever is lost in between, the loop sees one stream without a gap."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

import mondrian
from mondrian.v1 import analysis_pb2 as pb
from tests.client.conftest import AsyncCaller, Caller
from tests.client.scripted_server import ANALYSIS, Context, ScriptedServer, Tape, abort, playing, rich_status

PLAIN_LOSS = grpc.StatusCode.UNAVAILABLE
ENDING = rich_status(grpc.StatusCode.UNAVAILABLE, "the server is ending", reason="SHUTTING_DOWN")


def _tape(tokens: int = 5) -> list[pb.Event]:
    tape = Tape()
    events = [tape.accepted(), *(tape.token(f"{index} ", index) for index in range(tokens))]
    return [*events, tape.completed("".join(event.token.text for event in events))]


class Recorded:
    """An analysis that is kept: each call plays it from where it was asked to, and breaks off after so many events."""

    def __init__(self, server: ScriptedServer, events: Sequence[pb.Event], breaks: Sequence[int]) -> None:
        self._server = server
        self._events = events
        self._breaks = list(breaks)
        server.script = server.watch_script = self._play

    async def _play(self, request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        rest = self._events[getattr(request, "after_sequence", 0) :]
        if not self._breaks:
            for event in rest:
                yield event
            return
        for event in rest[: self._breaks.pop(0)]:
            yield event
        await context.abort(PLAIN_LOSS, "Socket closed")


@pytest.mark.parametrize("seen", range(1, 7))
async def test_a_stream_that_breaks_goes_on_after_the_last_event(
    server: ScriptedServer, caller: Caller, seen: int
) -> None:
    """After any number of events the rest comes from WatchAnalysis: no event is missing, none comes twice."""
    events = _tape()
    Recorded(server, events, [seen])
    outcome = await caller.collect()
    assert outcome.error is None
    assert [event.sequence for event in outcome.events] == list(range(1, len(events) + 1))
    assert outcome.text == "0 1 2 3 4 "
    assert [(watch.name, watch.after_sequence) for watch in server.watches] == [(ANALYSIS, seen)]


async def test_a_stream_that_breaks_again_and_again_has_no_gap(server: ScriptedServer, caller: Caller) -> None:
    """Breaks at random places, some right after a resume, lose and double nothing."""
    events = _tape(200)
    chance = random.Random(7)
    Recorded(server, events, [1, 0, *(chance.randrange(30) for _ in range(12))])
    outcome = await caller.collect()
    assert outcome.error is None
    assert [event.sequence for event in outcome.events] == list(range(1, len(events) + 1))
    assert outcome.text == events[-1].completed.text


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.CANCELLED, ""),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
    ],
    ids=["stopped server", "reset by a proxy"],
)
async def test_other_ways_to_be_cut_off_are_resumed_too(
    server: ScriptedServer, caller: Caller, code: grpc.StatusCode, details: str
) -> None:
    """A call that ends otherwise than by the server's own word goes on."""
    events = _tape()

    async def cut_off(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        for event in events[:3]:
            yield event
        await context.abort(code, details)

    server.script, server.watch_script = cut_off, playing(*events)
    outcome = await caller.collect()
    assert outcome.error is None
    assert [event.sequence for event in outcome.events] == list(range(1, len(events) + 1))


async def test_repeated_events_are_no_progress(server: ScriptedServer, caller: Caller) -> None:
    """A server that only tells again what was seen, and breaks off, is given up within the limit."""
    Recorded(server, _tape(), [3])

    async def repeat(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        for event in _tape()[:3]:
            yield event
        await context.abort(PLAIN_LOSS, "Socket closed")

    server.watch_script = repeat
    outcome = await caller.collect(resume_limit_s=0.5)
    assert type(outcome.error) is mondrian.ConnectionFailed
    assert [event.sequence for event in outcome.events] == [1, 2, 3]


async def test_a_watch_resumes_likewise(server: ScriptedServer, caller: Caller) -> None:
    """A watch begins where it was asked to, and goes on after what it has seen."""
    events = _tape()
    Recorded(server, events, [2, 1])
    outcome = await caller.watch(ANALYSIS, 2)
    assert outcome.error is None
    assert [event.sequence for event in outcome.events] == [3, 4, 5, 6, 7]
    assert [watch.after_sequence for watch in server.watches] == [2, 4, 5]
    assert server.requests == []


async def test_before_the_first_event_the_request_is_repeated(server: ScriptedServer, caller: Caller) -> None:
    """The same request, images and name included, is sent again, so that one analysis comes of it."""
    Recorded(server, _tape(), [0, 0])
    outcome = await caller.collect("hi", images=[b"picture"])
    assert outcome.error is None
    first, *others = server.requests
    assert len(others) == 2
    assert all(request == first for request in others)
    assert first.request_id
    assert [image.data for image in first.config.images] == [b"picture"]
    assert server.watches == []


async def test_each_request_has_a_name_of_its_own_and_a_grace(server: ScriptedServer, caller: Caller) -> None:
    """Request ids are drawn unless one is given; the grace is 30 s unless another one is."""
    server.script = playing(*_tape())
    await caller.collect()
    await caller.collect()
    await caller.collect(request_id="mine", disconnect_grace=1.5)
    first, second, third = server.requests
    assert first.request_id != second.request_id
    assert (first.disconnect_grace.ToMilliseconds(), third.disconnect_grace.ToMilliseconds()) == (30_000, 1500)
    assert third.request_id == "mine"


async def test_retry_info_is_honoured(server: ScriptedServer, caller: Caller) -> None:
    """The next try comes no sooner than the server asks."""
    times: list[float] = []
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "later", reason="ENGINE_UNAVAILABLE", retry_after_s=0.5)
    events = _tape()

    async def script(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        times.append(time.monotonic())
        if len(times) == 1:
            await abort(context, status)
        for event in events:
            yield event

    server.script = script
    assert (await caller.collect()).error is None
    assert times[1] - times[0] >= 0.5


async def test_a_restart_of_the_server_costs_nothing(server: ScriptedServer, caller: Caller) -> None:
    """The stream goes on when another server listens at the address, also after it was away for a while."""
    events = _tape()
    arrived = asyncio.Event()

    async def script(_request: Message, _context: Context) -> AsyncGenerator[pb.Event]:
        for event in events[:3]:
            yield event
        arrived.set()
        await asyncio.Event().wait()

    server.script = script
    following = asyncio.create_task(caller.collect())
    await arrived.wait()
    await server.stop()
    await asyncio.sleep(0.5)
    successor = ScriptedServer()
    Recorded(successor, events, [])
    await successor.start(server.address)
    try:
        outcome = await asyncio.wait_for(following, 10)
    finally:
        await successor.stop()
    assert outcome.error is None
    assert [event.sequence for event in outcome.events] == list(range(1, len(events) + 1))
    assert [watch.after_sequence for watch in successor.watches] == [3]


async def test_a_server_that_was_reached_before_is_waited_for(server: ScriptedServer, caller: Caller) -> None:
    """A new analysis begins though the server is away at that moment, where the client has known it."""
    server.script = playing(*_tape())
    await caller.call("list_advisors")
    await server.stop()
    following = asyncio.create_task(caller.collect())
    await asyncio.sleep(0.3)
    await server.start(server.address)
    assert (await asyncio.wait_for(following, 10)).error is None


async def test_a_deadline_tells_what_interrupted_the_stream(server: ScriptedServer, caller: Caller) -> None:
    """A stream that broke and does not go on in time ends with the deadline, and the break is its cause."""
    Recorded(server, _tape(), [3])
    server.watch_script = playing(forever=True)
    outcome = await caller.collect(timeout=2.0)
    assert type(outcome.error) is mondrian.DeadlineExceeded
    assert isinstance(outcome.error.__cause__, mondrian.ConnectionFailed)
    assert outcome.error.analysis == ANALYSIS
    assert len(outcome.events) == 3


async def test_what_was_seen_before_is_skipped(server: ScriptedServer, caller: Caller) -> None:
    """A server that repeats events doubles nothing."""
    events = _tape()
    Recorded(server, events, [4])
    server.watch_script = playing(*events)
    outcome = await caller.collect()
    assert [event.sequence for event in outcome.events] == list(range(1, len(events) + 1))
    assert outcome.text == "0 1 2 3 4 "


async def test_a_gap_is_an_error(server: ScriptedServer, caller: Caller) -> None:
    """A missing event is never passed over."""
    events = _tape()

    async def script(_request: Message, _context: Context) -> AsyncGenerator[pb.Event]:
        yield events[0]
        yield events[2]

    server.script = script
    outcome = await caller.collect()
    assert [event.sequence for event in outcome.events] == [1]
    assert type(outcome.error) is mondrian.InternalError
    assert "event 3 came after event 1" in str(outcome.error)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "EVENTS_EXPIRED", mondrian.EventsExpired),
        (grpc.StatusCode.NOT_FOUND, "ANALYSIS_NOT_FOUND", mondrian.AnalysisNotFound),
    ],
    ids=["expired", "deleted"],
)
async def test_what_is_gone_cannot_be_resumed(
    server: ScriptedServer,
    caller: Caller,
    code: grpc.StatusCode,
    reason: str,
    expected: type[mondrian.MondrianError],
) -> None:
    """Where the events are gone the loop ends by the typed error, with the analysis and the text so far."""
    Recorded(server, _tape(), [3])

    async def gone(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        await abort(context, rich_status(code, "gone", reason=reason))
        yield Tape().unknown()

    server.watch_script = gone
    outcome = await caller.collect()
    assert outcome.error is not None
    assert type(outcome.error) is expected
    assert outcome.error.analysis == ANALYSIS
    assert outcome.text == "0 1 "


@pytest.mark.alone
async def test_a_server_that_never_comes_back_is_given_up(server: ScriptedServer, caller: Caller) -> None:
    """Within the limit the loop ends by the error; each try was told, further and further apart, and the text stays."""
    told: list[tuple[str, float]] = []
    Recorded(server, _tape(), [3])
    began = time.monotonic()

    def note(error: mondrian.MondrianError, delay_s: float) -> None:
        told.append((type(error).__name__, delay_s))

    async def lost(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        await context.abort(PLAIN_LOSS, "Socket closed")
        yield Tape().unknown()

    server.watch_script = lost
    outcome = await caller.collect(resume_limit_s=1.5, on_interruption=note)
    assert 0.5 < time.monotonic() - began < 2.5
    assert type(outcome.error) is mondrian.ConnectionFailed
    assert outcome.error.analysis == ANALYSIS
    assert outcome.text == "0 1 "
    assert {name for name, _ in told} == {"ConnectionFailed"}
    assert all(0.05 * 2**n <= delay_s <= 0.1 * 2**n for n, (_, delay_s) in enumerate(told))
    assert len(server.watches) == len(told) >= 3


@pytest.mark.parametrize("limit_s", [None, 0])
async def test_resuming_can_be_turned_off(server: ScriptedServer, caller: Caller, limit_s: float | None) -> None:
    """Without a limit of time to try, the first loss is the end."""
    Recorded(server, _tape(), [3])
    outcome = await caller.collect(resume_limit_s=limit_s)
    assert type(outcome.error) is mondrian.ConnectionFailed
    assert server.watches == []


async def test_a_listener_can_give_up(server: ScriptedServer, caller: Caller) -> None:
    """What is told of an interruption may raise, and the loop raises that."""
    Recorded(server, _tape(), [3])

    def give_up(error: mondrian.MondrianError, _delay_s: float) -> None:
        raise error

    outcome = await caller.collect(on_interruption=give_up)
    assert type(outcome.error) is mondrian.ConnectionFailed
    assert server.watches == []


async def test_the_timeout_is_kept_over_resumes(server: ScriptedServer, caller: Caller) -> None:
    """Each further call has what is left of the time."""
    events = _tape()
    Recorded(server, events, [1, 1])
    tell = server.watch_script

    async def slowly(request: Any, context: Context) -> AsyncGenerator[pb.Event]:
        await asyncio.sleep(0.3)
        async for event in tell(request, context):
            yield event

    server.watch_script = slowly
    assert (await caller.collect(timeout=8)).error is None
    first, second, third = (left or 0.0 for left in server.times_left)
    assert second <= first + 0.1  # gRPC sends timeouts rounded up
    assert 0.2 < third <= second - 0.2


def _refuse(server: ScriptedServer, retry_after_s: float | None = None) -> None:
    status = rich_status(PLAIN_LOSS, "later", reason="LOG_UNAVAILABLE", retry_after_s=retry_after_s)

    async def refuse(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        await abort(context, status)
        yield Tape().unknown()

    server.script = refuse


@pytest.mark.alone
async def test_no_wait_goes_beyond_the_timeout(server: ScriptedServer, caller: Caller) -> None:
    """A server that asks for more time than is left is not tried again: its refusal is raised at once."""
    _refuse(server, retry_after_s=60.0)
    began = time.monotonic()
    outcome = await caller.collect(timeout=30.0)
    assert type(outcome.error) is mondrian.LogUnavailable
    assert time.monotonic() - began < 1.0
    assert len(server.requests) == 1


@pytest.mark.alone
async def test_the_timeout_ends_the_tries(server: ScriptedServer, caller: Caller) -> None:
    """The last try's refusal is raised, or, where the deadline cuts that try off, is what the deadline comes from."""
    _refuse(server)
    began = time.monotonic()
    outcome = await caller.collect(timeout=1.0)
    assert time.monotonic() - began < 1.4
    assert outcome.error is not None
    assert isinstance(outcome.error.__cause__ or outcome.error, mondrian.LogUnavailable)
    assert len(server.requests) > 1


async def test_a_full_queue_is_not_tried_again(server: ScriptedServer, caller: Caller) -> None:
    """RESOURCE_EXHAUSTED is the caller's to decide, RetryInfo or not."""
    status = rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", reason="TOO_MANY_ANALYSES", retry_after_s=0.1)

    async def refuse(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        await abort(context, status)
        yield Tape().unknown()

    server.script = refuse
    assert type((await caller.collect()).error) is mondrian.TooManyAnalyses
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
async def test_a_watch_ends_as_analyze_does(server: ScriptedServer, caller: Caller, kind: str) -> None:
    """WatchAnalysis ends OK after `failed` and `cancelled`; its loop raises what that of Analyze raises."""
    tape = Tape()
    status = rich_status(PLAIN_LOSS, "broken", reason="ENGINE_UNAVAILABLE", retry_after_s=2)
    head = [tape.accepted(), tape.token("a")]
    last = tape.failed(status) if kind == "failed" else tape.cancelled(stage=pb.STAGE_GENERATING)

    async def analyze(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        for event in (*head, last):
            yield event
        await abort(context, status if kind == "failed" else rich_status(grpc.StatusCode.CANCELLED, "c", reason=""))

    server.script = analyze
    server.watch_script = playing(*head, last)
    outcomes = [await caller.collect(), await caller.watch(ANALYSIS)]
    assert [[event.sequence for event in outcome.events] for outcome in outcomes] == [[1, 2], [1, 2]]
    errors = [outcome.error for outcome in outcomes]
    assert errors[0] is not None
    assert type(errors[0]) is type(errors[1])
    assert vars(errors[0]) == vars(errors[1])
    assert len(server.requests) == len(server.watches) == 1


async def test_a_watch_after_the_last_event_ends_well(server: ScriptedServer, caller: Caller) -> None:
    """Nothing is left to see, and that is no error."""
    server.watch_script = playing()
    outcome = await caller.watch(ANALYSIS, 7)
    assert (outcome.events, outcome.error) == ([], None)


async def test_ask_survives_interruptions(server: ScriptedServer, caller: Caller) -> None:
    """The whole answer is that of an undisturbed stream."""
    Recorded(server, _tape(), [2, 2])
    assert (await caller.call("ask", "hi")).text == "0 1 2 3 4 "


@pytest.mark.alone
async def test_a_fresh_client_does_not_wait_for_a_stranger(server: ScriptedServer, caller: Caller) -> None:
    """A server that was never reached is not waited for, in a watch either: most often the address is wrong."""
    await server.stop()
    began = time.monotonic()
    outcome = await caller.watch(ANALYSIS)
    assert type(outcome.error) is mondrian.ConnectionFailed
    assert time.monotonic() - began < 1.0


async def test_many_streams_resume_side_by_side(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """Fifty loops over one connection survive a restart of the server, each with its own text."""
    events = _tape(40)

    async def slowly(request: Message, _context: Context) -> AsyncGenerator[pb.Event]:
        for event in events[getattr(request, "after_sequence", 0) :]:
            yield event
            await asyncio.sleep(0.01)

    server.script = server.watch_script = slowly
    await client.list_advisors()
    following = asyncio.gather(*(AsyncCaller(client).collect() for _ in range(50)))
    await asyncio.sleep(0.2)
    await server.restart()
    for outcome in await asyncio.wait_for(following, 20):
        assert outcome.error is None
        assert [event.sequence for event in outcome.events] == list(range(1, len(events) + 1))
    assert len(server.watches) + len(server.requests) > 50  # those without an event repeated their request
