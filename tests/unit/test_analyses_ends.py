"""How analyses end: cancelled, failed, with the engine, at a deadline, at the shutdown; and what they leave."""

import asyncio
import gc

import pytest

from mondrian_server import errors
from mondrian_server.engine.interface import EngineState
from mondrian_server.engine.protocol import RowCancelled, RowFailed
from mondrian_server.events import Accepted, Cancelled, Completed, Failed, Stage, Token
from tests.unit.conditions import eventually
from tests.unit.office import FaultyLog, Office
from tests.unit.stand_ins import done, stage, tokens

# Ends.


async def test_cancelled_while_generating_it_ends_at_once_and_frees_its_row_later() -> None:
    """The caller sees the end now; the row is held until the engine closes it."""
    office = Office()
    name = office.accept()
    office.engine.step(stage(1, Stage.GENERATING), tokens(1, "The"))
    office.service.cancel(name)
    assert office.last(name, Cancelled).stage is Stage.GENERATING
    assert office.engine.cancelled == [1]
    assert office.scheduler.rows_held == 1
    office.engine.step(tokens(1, " late"), done(1))
    assert office.scheduler.rows_held == 0
    assert office.last(name, Cancelled)
    assert office.holds_nothing()


async def test_cancelling_twice_or_what_never_was_is_nothing() -> None:
    """Only a live analysis is cancelled."""
    office = Office()
    name = office.accept()
    office.service.cancel(name)
    before = office.events(name)
    office.service.cancel(name)
    office.service.cancel("analyses/none")
    assert office.events(name) == before


async def test_what_is_forgotten_is_cancelled_and_leaves_no_log() -> None:
    """A caller that went away leaves nothing, running or ended."""
    office = Office()
    running, ended = office.accept(), office.accept()
    office.engine.step(done(2))
    for name in (running, ended):
        office.service.forget(name)
        office.service.forget(name)
    assert len(office.log) == 0
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
async def test_a_row_that_fails_ends_its_analysis_by_its_reason(reason: str, kind: type[errors.MondrianError]) -> None:
    """The engine's reason becomes the error with its field; the others go on."""
    office = Office()
    names = [office.accept(), office.accept()]
    office.engine.step(RowFailed(row=1, reason=reason, message="why", field="config.prompt"), tokens(2, "x"))
    error = office.last(names[0], Failed).error
    assert type(error) is kind
    assert (error.message, error.field) == ("why", "config.prompt")
    assert office.service.live == 1
    assert office.scheduler.rows_held == 1


async def test_a_row_that_the_engine_gives_up_unasked_ends_its_analysis() -> None:
    """No analysis waits for ever for a row that is closed."""
    office = Office()
    name = office.accept()
    office.engine.step(RowCancelled(row=1))
    assert isinstance(office.last(name, Failed).error, errors.InternalError)
    assert office.holds_nothing()


async def test_a_defect_in_one_analysis_leaves_the_others_alone() -> None:
    """An exception on the way of one update ends that analysis, and the rest of the step arrives."""
    office = Office(log=FaultyLog())
    names = [office.accept(), office.accept()]
    office.engine.step(tokens(1, "break"), tokens(2, "fine"))
    error = office.last(names[0], Failed).error
    assert isinstance(error, errors.InternalError)
    assert "disk" not in error.message
    assert office.last(names[1], Token).text == "fine"
    assert office.engine.cancelled == [1]


async def test_updates_of_unknown_rows_are_ignored() -> None:
    """A row that nobody holds is nobody's."""
    office = Office()
    name = office.accept()
    before = office.events(name)
    office.engine.step(tokens(99, "x"), done(99), RowCancelled(row=99))
    assert office.events(name) == before


# The engine is lost.


async def test_a_lost_engine_fails_what_had_started_and_keeps_the_rest() -> None:
    """Those with a prompt read or a token end ENGINE_LOST with a time to come back; the others start again."""
    office = Office(lookahead=1)
    names = [office.accept(prompt) for prompt in ("1", "2", "3", "4")]
    office.engine.step(stage(1, Stage.GENERATING), tokens(1, "The"), stage(2, Stage.PREPARING))
    office.engine.die()
    failed = office.last(names[0], Failed)
    assert isinstance(failed.error, errors.EngineLost)
    assert failed.error.retry_after_s is not None
    assert failed.usage.output_tokens == 1
    assert office.service.live == 3
    office.engine.become(EngineState.LOADING)
    office.engine.become(EngineState.READY)
    assert office.engine.prompts[3:] == ["2", "3", "4"]
    for row in office.engine.rows[3:]:
        office.engine.step(tokens(row, "x"), done(row))
    assert [office.last(name, Completed).text for name in names[1:]] == ["x", "x", "x"]
    assert office.holds_nothing()


async def test_a_lost_engine_takes_its_cancelled_rows_with_it() -> None:
    """A row that was never closed does not hold a place of the next engine."""
    office = Office()
    office.service.cancel(office.accept())
    office.engine.die()
    assert office.holds_nothing()


# Deadlines.


async def test_the_earlier_of_deadline_and_time_limit_counts() -> None:
    """Accepted tells when the analysis ends at the latest; nothing earlier is missed."""
    office = Office()
    for deadline_in_s, time_limit_s, expected_s in ((100.0, 50.0, 50.0), (50.0, 100.0, 49.75), (None, 30.0, 30.0)):
        name = office.accept("?", deadline_in_s=deadline_in_s, time_limit_s=time_limit_s)
        event = office.events(name)[0]
        assert isinstance(event.payload, Accepted) and event.payload.deadline_time is not None
        left_s = (event.payload.deadline_time - event.create_time).total_seconds()
        assert left_s == pytest.approx(expected_s, abs=0.1)
        office.service.forget(name)


async def test_a_calls_deadline_leaves_time_for_the_last_events() -> None:
    """The margin is at most a quarter of what there is."""
    office = Office(deadline_margin_s=10.0)
    name = office.accept("?", deadline_in_s=20.0)
    event = office.events(name)[0]
    assert isinstance(event.payload, Accepted) and event.payload.deadline_time is not None
    assert (event.payload.deadline_time - event.create_time).total_seconds() == pytest.approx(15.0, abs=0.1)
    office.service.forget(name)


@pytest.mark.parametrize("time_limit_s", [1e8, 3e11, 315_576_000_000.0])
async def test_a_limit_of_centuries_is_none(time_limit_s: float) -> None:
    """The longest duration that the contract can hold is accepted, and ends nothing."""
    office = Office()
    name = office.accept("?", time_limit_s=time_limit_s)
    accepted = office.events(name)[0].payload
    assert isinstance(accepted, Accepted)
    assert accepted.deadline_time is None
    office.service.forget(name)


@pytest.mark.parametrize("state", [EngineState.READY, EngineState.LOADING, EngineState.DOWN])
async def test_a_deadline_in_the_queue_ends_the_analysis_whatever_the_engine_does(state: EngineState) -> None:
    """Waiting has its end too, and leaves no place behind."""
    office = Office(state)
    names = [office.accept("?", deadline_in_s=0.02) for _ in range(3)]
    await eventually(lambda: office.service.live == 0)
    for name in names:
        assert isinstance(office.last(name, Failed).error, errors.DeadlineExceeded)
    office.engine.close_cancelled()
    assert office.holds_nothing()


# Shutdown.


async def test_draining_lets_what_runs_end_and_refuses_what_is_new() -> None:
    """During the grace analyses go on; new ones are told when to come back."""
    office = Office()
    name = office.accept()
    draining = asyncio.create_task(office.service.drain(30.0))
    await asyncio.sleep(0)
    with pytest.raises(errors.ShuttingDown) as caught:
        office.accept()
    assert caught.value.retry_after_s is not None
    assert not draining.done()
    office.engine.step(tokens(1, "x"), done(1))
    await asyncio.wait_for(draining, 5)
    assert office.last(name, Completed).text == "x"


@pytest.mark.parametrize("grace_s", [0.0, 0.02])
async def test_what_outlasts_the_grace_fails(grace_s: float) -> None:
    """Running and waiting analyses end SHUTTING_DOWN with what they had."""
    office = Office()
    names = [office.accept() for _ in range(4)]
    office.engine.step(tokens(1, "half"))
    await asyncio.wait_for(office.service.drain(grace_s), 5)
    for name in names:
        error = office.last(name, Failed).error
        assert isinstance(error, errors.ShuttingDown)
        assert error.retry_after_s is not None
    assert office.service.live == 0


async def test_draining_an_idle_service_takes_no_time() -> None:
    """With nothing live, the grace is not waited for, not even one of none."""
    for grace_s in (0.0, 1000.0):
        await asyncio.wait_for(Office().service.drain(grace_s), 5)


# Leaks.


async def test_a_thousand_analyses_that_end_at_random_moments_leave_nothing() -> None:
    """Ended in every stage and by every way, they leave no row, place, task, byte or log."""
    tasks_before = len(asyncio.all_tasks())
    office = Office(lookahead=2, max_waiting=1000, max_waiting_bytes=10**9)
    names: list[str] = []
    for number in range(1000):
        images = (b"x",) if number % 3 == 0 else ()
        names.append(office.accept(str(number), *images, caller=f"c{number % 4}", deadline_in_s=None))
        held = [row for row in office.engine.rows if office.scheduler.holder(row)]
        match number % 7:
            case 0:
                office.service.forget(names[number // 2])
            case 1:
                office.engine.step(*(tokens(row, "x") for row in held))
            case 2:
                office.engine.step(*(done(row) for row in held))
            case 3:
                office.engine.close_cancelled()
            case 4:
                await asyncio.sleep(0)
            case 5 if number % 35 == 5:
                office.engine.die()
                office.engine.become(EngineState.READY)
            case _:
                office.service.cancel(names[-1])
    for name in names:
        office.service.forget(name)
    office.engine.close_cancelled()
    await eventually(office.holds_nothing)
    assert len(office.log) == 0
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks_before)
    gc.collect()
