"""How analyses end: cancelled, failed, with the engine, at a deadline, at the shutdown; and what they leave."""

import asyncio
import gc
import time

import pytest

from mondrian_server import errors
from mondrian_server.engine.interface import EngineState
from mondrian_server.engine.protocol import RowCancelled, RowFailed
from mondrian_server.events import Accepted, Cancelled, Completed, Failed, Stage, Token
from mondrian_server.log.interface import State
from tests.conditions import eventually
from tests.unit.office import LOCAL, Office, Offices
from tests.unit.stand_ins import done, stage, tokens

# Ends.


async def test_cancelled_while_generating_it_ends_at_once_and_frees_its_row_later(office: Office) -> None:
    """The caller sees the end now; the row is held until the engine closes it."""
    name = await office.create()
    office.step(stage(1, Stage.GENERATING), tokens(1, "The"))
    await office.cancel(name)
    assert (await office.last(name, Cancelled)).stage is Stage.GENERATING
    assert office.engine.cancelled == [1]
    assert office.scheduler.rows_held == 1
    office.step(tokens(1, " late"), done(1))
    assert office.scheduler.rows_held == 0
    assert await office.last(name, Cancelled)
    assert office.holds_nothing()


async def test_cancelling_twice_or_what_never_was_is_nothing(office: Office) -> None:
    """An ended analysis is left as it is; one that there is not is not found."""
    name = await office.create()
    await office.cancel(name)
    before = await office.events(name)
    await office.cancel(name)
    assert await office.events(name) == before
    with pytest.raises(errors.AnalysisNotFound):
        await office.cancel("analyses/none")


async def test_what_is_deleted_leaves_no_log(office: Office) -> None:
    """An active analysis cannot be deleted; an ended one can, once, and is not found from then on."""
    name = await office.create()
    with pytest.raises(errors.AnalysisActive):
        await office.service.delete(name, LOCAL)
    await office.cancel(name)
    await office.service.delete(name, LOCAL)
    for way in (office.service.delete, office.service.get, office.service.cancel):
        with pytest.raises(errors.AnalysisNotFound):
            await way(name, LOCAL)
    assert await office.service.list(LOCAL, ()) == []
    office.engine.close_cancelled()
    assert office.holds_nothing()


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("CONTEXT_EXCEEDED", errors.ContextExceeded),
        ("INVALID_REQUEST", errors.InvalidRequest),
        ("GENERATION_FAILED", errors.GenerationFailed),
        ("SOMETHING_NEW", errors.GenerationFailed),
    ],
)
async def test_a_row_that_fails_ends_its_analysis_by_its_reason(
    office: Office, reason: str, kind: type[errors.MondrianError]
) -> None:
    """The engine's reason becomes the error with its field; the others go on."""
    names = [await office.create(), await office.create()]
    office.step(RowFailed(row=1, reason=reason, message="why", field="config.prompt"), tokens(2, "x"))
    error = (await office.last(names[0], Failed)).error
    assert type(error) is kind
    assert (error.message, error.field) == ("why", "config.prompt")
    assert office.service.live == 1
    assert office.scheduler.rows_held == 1


async def test_a_row_that_the_engine_gives_up_unasked_ends_its_analysis(office: Office) -> None:
    """No analysis waits for ever for a row that is closed."""
    name = await office.create()
    office.step(RowCancelled(row=1))
    assert isinstance((await office.last(name, Failed)).error, errors.InternalError)
    assert office.holds_nothing()


async def test_a_defect_in_one_analysis_leaves_the_others_alone(office: Office) -> None:
    """An exception on the way of one update ends that analysis, and the rest of the step arrives."""
    names = [await office.create(), await office.create()]
    office.step(tokens(1, "break"), tokens(2, "fine"))
    error = (await office.last(names[0], Failed)).error
    assert isinstance(error, errors.InternalError)
    assert "disk" not in error.message
    assert (await office.last(names[1], Token)).text == "fine"
    assert office.engine.cancelled == [1]


async def test_updates_of_unknown_rows_are_ignored(office: Office) -> None:
    """A row that nobody holds is nobody's."""
    name = await office.create()
    before = await office.events(name)
    office.step(tokens(99, "x"), done(99), RowCancelled(row=99))
    assert await office.events(name) == before


# The engine is lost.


async def test_after_a_lost_engine_everything_goes_on(offices: Offices) -> None:
    """What had begun waits again at the head with its tokens, and says so; the rest notices nothing; all complete."""
    office = await offices.open(lookahead=1)
    names = [await office.create(prompt) for prompt in ("1", "2", "3", "4")]
    office.step(stage(1, Stage.GENERATING), tokens(1, "The", ids=(5,)), stage(2, Stage.PREPARING))
    office.engine.die()
    assert office.service.live == 4
    office.engine.become(EngineState.LOADING)
    office.engine.become(EngineState.READY)
    assert office.engine.prompts[3:] == ["1", "2", "3"]
    assert [submit.prior_ids for submit in office.engine.submitted[3:]] == [(5,), (), ()]
    assert [(await office.progress(name))[-1].continuations for name in names] == [1, 1, 0, 0]
    for prompt in "1234":
        row = office.row_of(prompt)
        office.step(stage(row, Stage.GENERATING), tokens(row, "x", ids=(6,)), done(row))
    assert [(await office.last(name, Completed)).text for name in names] == ["Thex", "x", "x", "x"]
    assert office.holds_nothing()


async def test_a_lost_engine_takes_its_cancelled_rows_with_it(office: Office) -> None:
    """A row that was never closed does not hold a place of the next engine."""
    await office.cancel(await office.create())
    office.engine.die()
    assert office.holds_nothing()


# Deadlines.


async def test_the_earlier_of_deadline_and_time_limit_counts(office: Office) -> None:
    """Accepted tells when the analysis ends at the latest; nothing earlier is missed."""
    for deadline_in_s, time_limit_s, expected_s in ((100.0, 50.0, 50.0), (50.0, 100.0, 49.75), (None, 30.0, 30.0)):
        name = await office.create("?", deadline_in_s=deadline_in_s, time_limit_s=time_limit_s)
        event = (await office.events(name))[0]
        assert isinstance(event.payload, Accepted) and event.payload.deadline_time is not None
        left_s = (event.payload.deadline_time - event.create_time).total_seconds()
        assert left_s == pytest.approx(expected_s, abs=0.1)
        await office.cancel(name)


async def test_a_calls_deadline_leaves_time_for_the_last_events(offices: Offices) -> None:
    """The margin is at most a quarter of what there is."""
    office = await offices.open(deadline_margin_s=10.0)
    name = await office.create("?", deadline_in_s=20.0)
    event = (await office.events(name))[0]
    assert isinstance(event.payload, Accepted) and event.payload.deadline_time is not None
    assert (event.payload.deadline_time - event.create_time).total_seconds() == pytest.approx(15.0, abs=0.1)
    await office.cancel(name)


async def test_a_calls_deadline_does_not_wait_for_the_log(office: Office) -> None:
    """What it takes to find an earlier request of the same id is part of the caller's time."""
    office.log.find_takes_s = 1.0
    began_s = time.time()
    name = await office.create("?", request_id="once", deadline_in_s=20.0)
    accepted = (await office.events(name))[0].payload
    assert isinstance(accepted, Accepted) and accepted.deadline_time is not None
    assert accepted.deadline_time.timestamp() == pytest.approx(began_s + 19.75, abs=0.5)
    await office.cancel(name)


@pytest.mark.parametrize("time_limit_s", [1e8, 3e11, 315_576_000_000.0])
async def test_a_limit_of_centuries_is_none(office: Office, time_limit_s: float) -> None:
    """The longest duration that the contract can hold is accepted, and ends nothing."""
    name = await office.create("?", time_limit_s=time_limit_s)
    accepted = (await office.events(name))[0].payload
    assert isinstance(accepted, Accepted)
    assert accepted.deadline_time is None
    await office.cancel(name)


@pytest.mark.parametrize("state", [EngineState.READY, EngineState.LOADING, EngineState.DOWN])
async def test_a_deadline_in_the_queue_ends_the_analysis_whatever_the_engine_does(
    offices: Offices, state: EngineState
) -> None:
    """Waiting has its end too, and leaves no place behind."""
    office = await offices.open(state)
    names = [await office.create("?", deadline_in_s=0.02) for _ in range(3)]
    await eventually(lambda: office.service.live == 0)
    for name in names:
        assert isinstance((await office.last(name, Failed)).error, errors.DeadlineExceeded)
    office.engine.close_cancelled()
    assert office.holds_nothing()


# Shutdown.


async def test_draining_lets_what_runs_end_and_refuses_what_is_new(office: Office) -> None:
    """During the grace analyses go on; new ones are told when to come back."""
    name = await office.create()
    draining = asyncio.create_task(office.service.drain(30.0))
    await asyncio.sleep(0)
    with pytest.raises(errors.ShuttingDown) as caught:
        await office.create()
    assert caught.value.retry_after_s is not None
    assert not draining.done()
    office.step(tokens(1, "x"), done(1))
    await asyncio.wait_for(draining, 5)
    assert (await office.last(name, Completed)).text == "x"


@pytest.mark.parametrize("grace_s", [0.0, 0.02])
async def test_what_outlasts_the_grace_is_left_to_the_next_start(office: Office, grace_s: float) -> None:
    """Running and waiting analyses stay active with what they had, and nothing more is written of them."""
    names = [await office.create(progress_interval_s=0.1) for _ in range(4)]
    office.step(stage(1, Stage.GENERATING), tokens(1, "half"))
    await asyncio.wait_for(office.service.drain(grace_s), 5)
    before = [await office.events(name) for name in names]
    office.step(tokens(1, " late"), done(1), done(2))
    office.engine.die()
    await asyncio.sleep(0.2)
    assert [await office.events(name) for name in names] == before
    assert (await office.tokens(names[0]))[-1].text == "half"
    assert {(await office.record(name)).state for name in names} == {State.ACTIVE}


async def test_draining_an_idle_service_takes_no_time(offices: Offices) -> None:
    """With nothing live, the grace is not waited for, not even one of none."""
    for grace_s in (0.0, 1000.0):
        office = await offices.open()
        await asyncio.wait_for(office.service.drain(grace_s), 5)


# Leaks.


async def test_a_thousand_analyses_that_end_at_random_moments_leave_nothing(offices: Offices) -> None:
    """Ended in every stage and by every way, they leave no row, place, task or byte."""
    tasks_before = len(asyncio.all_tasks())
    office = await offices.open(lookahead=2, max_waiting=1000, max_waiting_bytes=10**9)
    names: list[str] = []
    for number in range(1000):
        images = (b"x",) if number % 3 == 0 else ()
        names.append(await office.create(str(number), *images))
        held = [row for row in office.engine.rows if office.scheduler.holder(row)]
        match number % 7:
            case 0:
                await office.cancel(names[number // 2])
            case 1:
                office.step(*(tokens(row, "x") for row in held))
            case 2:
                office.step(*(done(row) for row in held))
            case 3:
                office.engine.close_cancelled()
            case 4:
                await asyncio.sleep(0)
            case 5 if number % 35 == 5:
                office.crash()
            case _:
                await office.cancel(names[-1])
    for name in names:
        await office.cancel(name)
    office.engine.close_cancelled()
    await eventually(office.holds_nothing)
    ended = await office.service.list(LOCAL, (State.COMPLETED, State.FAILED, State.CANCELLED), limit=2000)
    assert len(ended) == 1000
    assert {State.COMPLETED, State.CANCELLED} <= {view.record.state for view in ended}
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks_before)
    gc.collect()
