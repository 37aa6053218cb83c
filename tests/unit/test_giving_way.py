"""Giving way: a caller under its share of the slots does not wait for the end of what holds more than its own."""

from mondrian_server.engine.interface import EngineState
from mondrian_server.engine.protocol import RowGaveWay
from mondrian_server.events import Cancelled, Progress, Stage, Token
from tests.unit.office import Office, Offices
from tests.unit.stand_ins import done, stage, tokens

A, B = "a", "b"


async def busy(offices: Offices, *, told: int = 2) -> tuple[Office, list[str]]:
    """Return an office whose two slots one caller holds, with two more waiting; each row has told some tokens."""
    office = await offices.open(EngineState.READY, lookahead=1, max_waiting=100)
    names = [await office.create(f"a{n}", caller=A) for n in range(4)]
    for row in (1, 2):
        office.step(
            stage(row, Stage.GENERATING), tokens(row, "x " * (told + row), told + row, ids=tuple(range(told + row)))
        )
    return office, names


async def test_whoever_gives_way_goes_on_later(offices: Offices) -> None:
    """It says so and waits at the head of the queue, with the tokens that it had until the engine took its slot."""
    office, names = await busy(offices)
    theirs = await office.create("b0", caller=B)
    row = office.row_of("b0")
    office.step(tokens(1, "last ", 1, ids=(9,)))
    office.step(RowGaveWay(row=1), tokens(row, "b", 1, ids=(1,)))
    assert (await office.last(theirs, Token)).text == "b"
    said = await office.last(names[0], Progress)
    assert (said.stage, said.continuations) == (Stage.QUEUED, 1)
    assert said.message.startswith("Making way for another caller")
    assert (await office.tokens(names[0]))[-1].text == "last "
    office.step(done(row))
    office.step(done(2))
    again = next(submit for submit in reversed(office.engine.submitted) if submit.prompt == "a0")
    assert again.prior_ids == (0, 1, 2, 9)
    assert office.engine.prompts.index("a3") > office.engine.submitted.index(again)


async def test_a_caller_under_its_share_is_handed_over_at_once(offices: Offices) -> None:
    """Beyond the slots and the look-ahead, up to its share; what is more waits in the queue."""
    office, _ = await busy(offices)
    assert office.engine.prompts == ["a0", "a1", "a2"]
    await office.create("b0", caller=B)
    await office.create("b1", caller=B)
    assert office.engine.prompts == ["a0", "a1", "a2", "b0"]


async def test_nobody_is_handed_over_where_nobody_holds_more(offices: Offices) -> None:
    """Two callers with a slot each: the third one waits, but for the look-ahead."""
    office = await offices.open(EngineState.READY, max_waiting=100)
    for caller in (A, B, "c"):
        await office.create(caller, caller=caller)
    assert office.engine.prompts == [A, B]


async def test_what_is_handed_over_is_bounded(offices: Offices) -> None:
    """However many callers come: a row for each slot besides."""
    office = await offices.open(EngineState.READY, slots=4, lookahead=1, max_waiting=100)
    for n in range(6):
        await office.create(f"a{n}", caller=A)
    for n in range(20):
        await office.create(f"x{n}", caller=f"x{n}")
    assert office.scheduler.rows_held <= 2 * 4 + 1


async def test_whoever_is_cancelled_while_it_gives_way_ends(offices: Offices) -> None:
    """It does not come back to the queue."""
    office, names = await busy(offices)
    await office.service.cancel(names[0], A)
    office.step(RowGaveWay(row=1))
    assert (await office.last(names[0], Cancelled)).stage is Stage.GENERATING
    assert office.engine.prompts.count("a0") == 1
    assert office.scheduler.rows_held == 3
