"""Durability: analyses outlive calls, repeated requests, and the server; the log holds what is needed for that."""

import asyncio
import time
from dataclasses import replace

import pytest

from mondrian_server import errors
from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.engine.interface import EngineState
from mondrian_server.events import Accepted, Cancelled, Completed, Failed, Progress, Stage
from mondrian_server.log.interface import State
from tests.conditions import eventually
from tests.unit.office import LOCAL, Office, Offices
from tests.unit.stand_ins import GatedDecoder, done, stage, tokens


def begin(office: Office, prompt: str, *ids: int) -> None:
    """Let the engine give one token for each id to the newest row of a prompt."""
    row = office.row_of(prompt)
    office.step(stage(row, Stage.GENERATING, done=10))
    for id_ in ids:
        office.step(tokens(row, f"{id_} ", ids=(id_,)))


def finish(office: Office, prompt: str) -> None:
    """Let the engine end the newest row of a prompt."""
    office.step(done(office.row_of(prompt)))


# The next life of the server.


async def test_the_next_life_goes_on_after_the_last_token(offices: Offices) -> None:
    """Running analyses are submitted with their tokens, in order; texts and sequences are as of one life."""
    office = await offices.open()
    names = [await office.create(prompt) for prompt in ("one", "two", "three")]
    begin(office, "one", 11, 12)
    begin(office, "two", 21)
    office = await offices.reopen()
    assert [(row.prompt, row.prior_ids) for row in office.engine.submitted] == []
    assert office.scheduler.waiting == 3
    office.engine.become(EngineState.READY)
    assert [(row.prompt, row.prior_ids) for row in office.engine.submitted] == [("one", (11, 12)), ("two", (21,))]
    for prompt, id_ in (("one", 13), ("two", 22), ("three", 31)):
        begin(office, prompt, id_)
        finish(office, prompt)
    texts = [(await office.last(name, Completed)).text for name in names]
    assert texts == ["11 12 13 ", "21 22 ", "31 "]
    for name in names:
        sequences = [event.sequence for event in await office.events(name)]
        assert sequences == list(range(1, len(sequences) + 1))
        said = [p for p in await office.progress(name) if p.message.startswith("Continuing")]
        assert len(said) == 1
    assert office.holds_nothing()


async def test_what_was_not_handed_to_the_log_is_generated_again(offices: Offices) -> None:
    """A server that is killed loses the tokens that waited for their interval, and they come again."""
    office = await offices.open()
    name = await office.create(token_interval_s=60.0)
    begin(office, "?", 1, 2, 3)
    await offices.kill()
    office = await offices.reopen()
    office.engine.become(EngineState.READY)
    assert office.engine.submitted[-1].prior_ids == (1,)
    begin(office, "?", 2, 3)
    finish(office, "?")
    assert (await office.last(name, Completed)).text == "1 2 3 "
    indices = [(token.first_index, token.token_count) for token in await office.tokens(name)]
    assert [first for first, _ in indices] == [sum(count for _, count in indices[:i]) for i in range(len(indices))]


async def test_one_that_was_created_and_never_accepted_begins(offices: Offices) -> None:
    """A death between the record and its first event leaves an analysis that starts from the beginning."""
    office = await offices.open(EngineState.LOADING)
    name = await office.create("?", advisor="ansel")
    record = await office.record(name)
    await office.cancel(name)
    twin = "analyses/twin"
    await office.log.create(
        type(record)(
            name=twin,
            caller=record.caller,
            request_id="",
            digest=b"",
            create_time_s=record.create_time_s,
            spec=record.spec,
        ),
        (),
        owner="somebody",
        lease_s=60.0,
    )
    office = await offices.reopen()
    payloads = await office.payloads(twin)
    assert isinstance(payloads[0], Accepted)
    assert payloads[0].advisor == "advisors/ansel"
    assert (await office.progress(twin))[-1].continuations == 0
    office.engine.become(EngineState.READY)
    assert office.engine.prompts == ["?"]


async def test_images_are_decoded_again_only_if_they_had_not_been(offices: Offices) -> None:
    """Raw files are decoded in the next life; pictures are taken as they are kept, losslessly."""
    shut = GatedDecoder(is_open=False)
    office = await offices.open(decoder=shut)
    await office.create("raw", b"first", b"second")
    await eventually(lambda: shut.decoding == 1)
    await offices.close()
    office = await offices.reopen()
    assert office.service.bytes_held == len(b"first") + len(b"second")
    office.engine.become(EngineState.READY)
    await eventually(lambda: office.engine.submitted)
    await offices.close()
    closed = GatedDecoder(is_open=False)
    office = await offices.reopen(decoder=closed)
    office.engine.become(EngineState.READY)
    await eventually(lambda: office.engine.submitted)
    assert [picture.digest for picture in office.engine.submitted[0].pictures] == [b"first", b"second"]
    assert closed.decoding == 0
    finish(office, "raw")
    assert office.holds_nothing()


async def test_an_analysis_whose_images_are_gone_fails(offices: Offices) -> None:
    """It does not go on without what it was asked about."""
    shut = GatedDecoder(is_open=False)
    office = await offices.open(decoder=shut)
    name = await office.create("?", b"first")
    await office.log.put_pictures(name, ())
    office = await offices.reopen()
    office.engine.become(EngineState.READY)
    await eventually(lambda: office.service.live == 0)
    assert isinstance((await office.last(name, Failed)).error, errors.InternalError)
    assert office.holds_nothing()


async def test_one_that_cannot_be_read_fails_and_bars_nobody(offices: Offices) -> None:
    """What a later version wrote, or a damage, ends that analysis; the others go on, and it can be deleted."""
    office = await offices.open()
    name = await office.create("good")
    record = await office.record(name)
    await office.log.create(
        type(record)(
            name="analyses/strange",
            caller=LOCAL,
            request_id="",
            digest=b"",
            create_time_s=record.create_time_s,
            spec=b"not a spec",
        ),
        (),
        owner="somebody",
        lease_s=60.0,
    )
    office = await offices.reopen()
    assert isinstance((await office.last("analyses/strange", Failed)).error, errors.InternalError)
    assert (await office.record("analyses/strange")).state is State.FAILED
    assert office.service.live == 1
    listed = await office.service.list(LOCAL, ())
    assert [view.record.name for view in listed] == ["analyses/strange", name]
    await office.service.delete("analyses/strange", LOCAL)
    office.engine.become(EngineState.READY)
    finish(office, "good")
    assert office.holds_nothing()


async def test_a_dropped_call_has_its_grace_anew(offices: Offices) -> None:
    """After a restart nobody watches: without a grace it is cancelled at once, with one later, detached never."""
    office = await offices.open()
    names = [await office.create(grace_s=grace_s) for grace_s in (0.0, 0.1, 600.0, None)]
    office = await offices.reopen()
    await office.last(names[0], Cancelled)
    assert office.service.live == 3
    await eventually(lambda: office.service.live == 2)
    await office.last(names[1], Cancelled)
    states = [(await office.record(name)).state for name in names]
    assert states == [State.CANCELLED, State.CANCELLED, State.ACTIVE, State.ACTIVE]


async def test_a_wish_to_cancel_outlives_the_server(offices: Offices) -> None:
    """Whoever cancels while the server ends is heard by the next one."""
    office = await offices.open()
    name, other = await office.create(), await office.create()
    await office.service.drain(0.0)
    view = await office.service.cancel(name, LOCAL)
    assert view.record.state is State.ACTIVE, "this life writes nothing more"
    office = await offices.reopen()
    await office.service.hold()
    await office.last(name, Cancelled)
    assert (await office.record(other)).state is State.ACTIVE


async def test_a_request_that_comes_in_while_the_server_ends_is_left_to_the_next(offices: Offices) -> None:
    """What was being written when the drain ended is kept, and not begun."""
    office = await offices.open()
    creating = asyncio.create_task(office.create())
    for _ in range(2):
        await asyncio.sleep(0)
    await office.service.drain(0.0)
    name = await creating
    assert office.engine.submitted == []
    assert await office.payloads(name) == []
    office = await offices.reopen()
    office.engine.become(EngineState.READY)
    finish(office, "?")
    assert (await office.record(name)).state is State.COMPLETED


# Calls that come and go.


async def test_a_call_that_has_gone_lets_its_analysis_go(office: Office) -> None:
    """Without a grace it is cancelled at once; while somebody watches, never; detached, never."""
    left, watched, detached = [await office.create(grace_s=grace_s) for grace_s in (0.0, 0.0, None)]
    watcher = office.watch(watched)
    await eventually(lambda: watcher.events)
    for name in (left, watched, detached):
        office.service.let_go(name)
    assert office.service.live == 2
    await office.last(left, Cancelled)
    await watcher.leave()
    await asyncio.sleep(0)
    assert office.service.live == 2, "leaving a watch never cancels"


async def test_whoever_is_about_to_watch_watches(office: Office) -> None:
    """A watch counts from its very beginning, before it has read anything."""
    name = await office.create(grace_s=0.0)
    watcher = office.watch(name)
    await asyncio.sleep(0)
    assert watcher.events == []
    office.service.let_go(name)
    finish(office, "?")
    assert isinstance((await watcher.end())[-1].payload, Completed)


async def test_the_grace_is_for_coming_back(office: Office) -> None:
    """After the grace an analysis that nobody watches is cancelled, and one that is watched goes on."""
    names = [await office.create(grace_s=0.1) for _ in range(2)]
    for name in names:
        office.service.let_go(name)
    watcher = office.watch(names[1])
    assert office.service.live == 2
    await eventually(lambda: office.service.live == 1)
    await office.last(names[0], Cancelled)
    finish_row = office.engine.rows[1]
    office.step(done(finish_row))
    assert isinstance((await watcher.end())[-1].payload, Completed)


async def test_letting_go_of_what_has_ended_or_never_was_is_nothing(office: Office) -> None:
    """The end of a call that saw the terminal event changes nothing."""
    name = await office.create(grace_s=0.0)
    finish(office, "?")
    before = await office.events(name)
    office.service.let_go(name)
    office.service.let_go("analyses/none")
    assert await office.events(name) == before


@pytest.mark.parametrize(("grace_s", "live"), [(0.0, 0), (600.0, 1), (None, 1)])
async def test_a_call_that_goes_while_its_analysis_is_created_lets_it_go(
    office: Office, grace_s: float | None, live: int
) -> None:
    """The analysis is created all the same, and then let go by its grace."""
    creating = asyncio.create_task(office.create(grace_s=grace_s))
    await asyncio.sleep(0)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    await eventually(lambda: office.engine.submitted)
    await eventually(lambda: office.service.live == live)
    (view,) = await office.service.list(LOCAL, ())
    assert (view.record.state is State.ACTIVE) == bool(live)


async def test_a_call_that_goes_while_its_request_is_refused_leaves_nothing(office: Office) -> None:
    """An error that nobody waits for is no defect."""
    creating = asyncio.create_task(office.create(""))
    await asyncio.sleep(0)
    creating.cancel()
    await asyncio.wait((creating,))
    assert office.holds_nothing()


# Admission.


async def test_those_who_are_being_written_count_as_waiting(office: Office) -> None:
    """However many come at once, no more are taken on than may wait."""
    outcomes = await asyncio.gather(*(office.create() for _ in range(20)), return_exceptions=True)
    taken = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert 3 <= len(taken) <= 5
    assert all(isinstance(o, errors.TooManyAnalyses) for o in outcomes if not isinstance(o, str))
    assert office.scheduler.waiting <= 3
    for name in taken:
        await office.cancel(name)
    office.engine.close_cancelled()
    assert office.holds_nothing()


async def test_bytes_that_are_being_written_count_too(offices: Offices) -> None:
    """Images that come at once do not pass the bound together."""
    office = await offices.open(decoder=GatedDecoder(is_open=False), max_waiting=100)
    outcomes = await asyncio.gather(*(office.create("?", bytes(400)) for _ in range(10)), return_exceptions=True)
    taken = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(taken) == 2
    assert all(isinstance(o, errors.TooManyBytes) for o in outcomes if not isinstance(o, str))
    assert office.service.bytes_held == 800
    for name in taken:
        await office.cancel(name)
    assert office.holds_nothing()


# Request ids.


async def test_fifty_at_once_with_one_request_id_make_one_analysis(offices: Offices) -> None:
    """All get the same name, and one row is submitted."""
    office = await offices.open(max_waiting=100)
    names = await asyncio.gather(*(office.create(request_id="r") for _ in range(50)))
    assert len(set(names)) == 1
    assert office.engine.rows == [1]
    assert office.service.live == 1


async def test_a_request_id_stands_for_its_request_also_after_its_end_and_a_restart(offices: Offices) -> None:
    """The same request gets the same analysis; it needs no room, and a server that is full gives it."""
    office = await offices.open()
    name = await office.create("?", b"image", request_id="r")
    await eventually(lambda: office.engine.submitted)
    finish(office, "?")
    for _ in range(5):
        await office.create("filling")
    with pytest.raises(errors.TooManyAnalyses):
        await office.create("?")
    assert await office.create("?", b"image", request_id="r") == name
    office = await offices.reopen()
    assert await office.create("?", b"image", request_id="r") == name
    assert isinstance((await office.watch(name).end())[-1].payload, Completed)


@pytest.mark.parametrize(
    "changes",
    [{"prompt": "other"}, {"images": (b"other",)}, {"images": ()}, {"token_ids": True}, {"time_limit_s": 5.0}],
    ids=str,
)
async def test_a_request_id_is_not_used_twice(office: Office, changes: dict[str, object]) -> None:
    """Whatever differs, images included, is another request, which is refused and holds nothing."""
    request = AnalysisRequest(prompt="?", images=(b"image",), request_id="r")
    await office.service.create(request)
    await eventually(lambda: office.engine.submitted)
    held = office.service.bytes_held
    with pytest.raises(errors.RequestIdReused) as caught:
        await office.service.create(replace(request, **changes))
    assert caught.value.field == "request_id"
    assert (office.service.live, office.service.bytes_held) == (1, held)


async def test_request_ids_belong_to_their_caller(office: Office) -> None:
    """Two callers may use the same id for different requests."""
    request = AnalysisRequest(prompt="one", request_id="r", caller="a")
    first = await office.service.create(request)
    second = await office.service.create(replace(request, prompt="two", caller="b"))
    assert first != second
    assert await office.service.create(request) == first


async def test_without_a_request_id_every_request_is_a_new_one(office: Office) -> None:
    """Nobody is attached to another's analysis by chance."""
    assert await office.create() != await office.create()


# Polling.


async def test_a_poll_tells_stage_text_and_end(office: Office) -> None:
    """At any moment there is the text so far, which only grows, and the progress while it is active."""
    name = await office.create()
    view = await office.service.get(name, LOCAL)
    assert view.progress is not None
    assert (view.progress.stage, view.text) == (Stage.PREPARING, "")
    begin(office, "?", 1, 2)
    view = await office.service.get(name, LOCAL)
    assert view.progress is not None
    assert (view.progress.stage, view.text) == (Stage.GENERATING, "1 2 ")
    finish(office, "?")
    view = await office.service.get(name, LOCAL)
    assert (view.record.state, view.progress, view.text) == (State.COMPLETED, None, "1 2 ")


async def test_a_poll_never_goes_back(office: Office) -> None:
    """In the moment of the end it shows either the last text or the end, never less."""
    for _ in range(40):
        name = await office.create()
        begin(office, "?", 1, 2)
        polls = [asyncio.create_task(office.service.get(name, LOCAL)) for _ in range(3)]
        lists = [asyncio.create_task(office.service.list(LOCAL, (), limit=1)) for _ in range(3)]
        await asyncio.sleep(0)
        time.sleep(0.001)  # noqa: ASYNC251  # a busy loop, in which the log's thread answers
        finish(office, "?")
        views = [await poll for poll in polls] + [(await listed)[0] for listed in lists]
        for view in views:
            assert view.record.name == name
            assert view.text == "1 2 "
            assert (view.progress is None) == (view.record.state is not State.ACTIVE)


async def test_deleting_twice_at_once_deletes_once(office: Office) -> None:
    """The second one is told that there is nothing any more."""
    name = await office.create()
    await office.cancel(name)
    outcomes = await asyncio.gather(*(office.service.delete(name, LOCAL) for _ in range(3)), return_exceptions=True)
    assert outcomes.count(None) == 1
    assert all(isinstance(o, errors.AnalysisNotFound) for o in outcomes if o is not None)


async def test_cancelling_returns_the_end(office: Office) -> None:
    """The view that a cancel gives is that of an ended analysis with its partial text."""
    name = await office.create()
    begin(office, "?", 1)
    view = await office.service.cancel(name, LOCAL)
    assert (view.record.state, view.text, view.progress) == (State.CANCELLED, "1 ", None)
    assert isinstance(view.record.terminal, Cancelled)


async def test_cancelling_in_the_moment_of_the_end_leaves_it(office: Office) -> None:
    """An end that is written but not yet kept stays the end."""
    name = await office.create()
    finish(office, "?")
    view = await office.service.cancel(name, LOCAL)
    assert view.record.state is State.COMPLETED


async def test_progress_is_told_where_it_is_known(office: Office) -> None:
    """A list shows progress for the active and none for the ended, newest first."""
    ended, active = await office.create("ended"), await office.create("active")
    finish(office, "ended")
    views = await office.service.list(LOCAL, ())
    assert [view.record.name for view in views] == [active, ended]
    assert isinstance(views[0].progress, Progress)
    assert views[1].progress is None
    assert [v.record.name for v in await office.service.list(LOCAL, (State.ACTIVE,))] == [active]
