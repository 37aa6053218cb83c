"""Observing: whoever counts hears of each thing once, also where an analysis is interrupted."""

import pytest

from mondrian_server import errors
from mondrian_server.analyses.observing import Observer
from mondrian_server.engine.interface import EngineState
from mondrian_server.errors import MondrianError
from mondrian_server.events import Stage, Terminal
from tests.unit.office import Office, Offices
from tests.unit.stand_ins import done, stage, tokens


class Recorder(Observer):
    """Writes down what it hears."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.heard: list[str] = []

    def accepted(self) -> None:
        """Write it down."""
        self.heard.append("accepted")

    def refused(self, error: MondrianError) -> None:
        """Write it down."""
        self.heard.append(f"refused {error.reason}")

    def started(self, queue_s: float) -> None:
        """Write it down."""
        assert queue_s >= 0
        self.heard.append("started")

    def first_token(self, after_s: float, count: int) -> None:
        """Write it down."""
        assert after_s >= 0
        self.heard.append(f"first {count}")

    def tokens(self, gap_s: float, count: int) -> None:
        """Write it down."""
        assert gap_s >= 0
        self.heard.append(f"tokens {count}")

    def continued(self) -> None:
        """Write it down."""
        self.heard.append("continued")

    def ended(self, terminal: Terminal) -> None:
        """Write it down."""
        self.heard.append(type(terminal).__name__)


async def run_one(office: Office) -> None:
    """Let an analysis run to its end."""
    await office.create()
    row = office.engine.rows[-1]
    office.step(stage(row, Stage.PREPARING), stage(row, Stage.GENERATING))
    office.step(tokens(row, "The", 1))
    office.step(tokens(row, " red one", 2))
    office.step(done(row, output_tokens=3))


async def test_an_analysis_is_told_from_its_acceptance_to_its_end(offices: Offices) -> None:
    """Each thing comes once, and all tokens are counted."""
    recorder = Recorder()
    await run_one(await offices.open(observer=recorder))
    assert recorder.heard == ["accepted", "started", "first 1", "tokens 2", "Completed"]


async def test_an_interruption_is_told_and_what_was_heard_does_not_come_again(offices: Offices) -> None:
    """After the loss of the engine there is no second start and no second first token."""
    recorder = Recorder()
    office = await offices.open(observer=recorder)
    await office.create()
    office.step(stage(1, Stage.GENERATING), tokens(1, "The", ids=(5,)))
    office.crash()
    row = office.engine.rows[-1]
    office.step(stage(row, Stage.GENERATING), tokens(row, " red", ids=(6,)), done(row, output_tokens=2))
    assert recorder.heard == ["accepted", "started", "first 1", "continued", "tokens 1", "Completed"]


async def test_the_next_life_of_the_server_tells_what_it_sees_itself(offices: Offices) -> None:
    """What is taken up after a restart is told as continued, neither as accepted nor as waiting for its first slot."""
    office = await offices.open()
    await office.create()
    office.step(stage(1, Stage.GENERATING), tokens(1, "The", ids=(5,)))
    recorder = Recorder()
    office = await offices.reopen(observer=recorder)
    office.engine.become(EngineState.READY)
    row = office.row_of("?")
    office.step(stage(row, Stage.GENERATING), tokens(row, " red", ids=(6,)), done(row, output_tokens=2))
    assert recorder.heard == ["continued", "tokens 1", "Completed"]


async def test_a_refusal_is_told_once_with_its_reason(offices: Offices) -> None:
    """What finds no room is heard of as refused, and of nothing else."""
    recorder = Recorder()
    office = await offices.open(observer=recorder, max_waiting=1)
    for _ in range(3):
        await office.create()
    with pytest.raises(errors.TooManyAnalyses):
        await office.create()
    assert recorder.heard.count("accepted") == 3
    assert [word for word in recorder.heard if word.startswith("refused")] == ["refused TOO_MANY_ANALYSES"]


async def test_an_unobserved_service_does_the_same(office: Office) -> None:
    """Nobody has to count."""
    await run_one(office)
    assert office.holds_nothing()
