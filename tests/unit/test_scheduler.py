"""The scheduler: who gets the engine's next place, and what becomes of rows when the engine is lost."""

import asyncio
from dataclasses import replace

import pytest
from mondrian_server.log.memory import MemoryLog

from mondrian_server.analyses.analysis import Analysis
from mondrian_server.analyses.request import AnalysisRequest, Delivery
from mondrian_server.analyses.resolution import Defaults, resolve
from mondrian_server.analyses.scheduler import MAX_DISPATCHES, Scheduler
from mondrian_server.engine.interface import EngineState
from mondrian_server.engine.protocol import Loading
from mondrian_server.events import Accepted, Progress, Stage, Terminal
from mondrian_server.pictures import Picture
from mondrian_server.sampling import Sampling
from tests.unit.conditions import eventually
from tests.unit.stand_ins import ADVISORS, ScriptedEngine, stage


class Desk:
    """A scheduler with two slots and one place of look-ahead, and the analyses that were put before it."""

    def __init__(self, state: EngineState = EngineState.READY, *, slots: int = 2, lookahead: int = 1) -> None:
        """Begin with nobody waiting."""
        self.engine = ScriptedEngine(state)
        self.scheduler = Scheduler(self.engine, slots=slots, lookahead=lookahead)
        self.log = MemoryLog()
        self.analyses: dict[str, Analysis] = {}

    def enter(self, name: str, *, decoding: bool = False, **changes: object) -> int:
        """Put an analysis before the scheduler, its first letter is its caller; return its position."""
        delivery = Delivery(token_interval_s=60.0, progress_interval_s=60.0)
        request = AnalysisRequest(prompt=name, caller=name[0], delivery=delivery)
        request = replace(request, **changes)
        resolved = resolve(request, Defaults(model="tiny"), ADVISORS)
        analysis = Analysis(f"analyses/{name}", request, resolved, log=self.log, on_end=self._ended)
        self.analyses[name] = analysis
        if decoding:
            analysis.preparation = asyncio.create_task(asyncio.sleep(600))
        position = self.scheduler.enter(analysis)
        analysis.accept(
            Accepted(
                model="models/tiny",
                advisor="",
                sampling=resolved.sampling,
                context_tokens=0,
                queue_position=position,
            ),
            deadline_in_s=None,
        )
        self.scheduler.pump()
        return position

    def _ended(self, analysis: Analysis, _: Terminal) -> None:
        if analysis.preparation is not None:
            analysis.preparation.cancel()
        self.scheduler.leave(analysis)

    def decoded(self, name: str) -> None:
        """End the decoding of an analysis's picture."""
        analysis = self.analyses[name]
        assert analysis.preparation is not None
        analysis.preparation.cancel()
        analysis.preparation = None
        analysis.pictures = (Picture(width=1, height=1, pixels=b"rgb", digest=b"d"),)
        self.scheduler.prepared(analysis)

    def close(self, name: str) -> None:
        """Let the engine close the row of an analysis."""
        self.scheduler.free(self.analyses[name])

    @property
    def waiting(self) -> list[str]:
        """The prompts of those who hold no row."""
        return [analysis.request.prompt for analysis in self.scheduler]

    def stage_of(self, name: str) -> Stage:
        """Return an analysis's stage."""
        return self.analyses[name].tracker.stage

    def positions_of(self, name: str) -> list[int]:
        """Return the queue positions that an analysis was told."""
        events = self.log.read(f"analyses/{name}", 0)
        return [e.payload.queue_position for e in events if isinstance(e.payload, Progress)]

    def end(self) -> None:
        """Cancel everything, so that no timer is left."""
        for analysis in self.analyses.values():
            analysis.cancel()


async def test_rows_are_dispatched_in_order_up_to_the_slots_and_the_lookahead() -> None:
    """Two run, one is ready for the next free slot, the others wait."""
    desk = Desk()
    for name in ("a1", "a2", "a3", "a4", "a5"):
        desk.enter(name)
    assert desk.engine.prompts == ["a1", "a2", "a3"]
    assert desk.waiting == ["a4", "a5"]
    assert (desk.scheduler.waiting, desk.scheduler.rows_held) == (2, 3)
    assert [desk.stage_of(name) for name in ("a1", "a2", "a3")] == [Stage.PREPARING, Stage.PREPARING, Stage.QUEUED]
    desk.end()


async def test_a_closed_row_gives_its_place_to_the_next() -> None:
    """The place is filled in the same moment, and every row has a number of its own."""
    desk = Desk()
    for name in ("a1", "a2", "a3", "a4", "a5"):
        desk.enter(name)
    desk.close("a2")
    assert desk.engine.prompts == ["a1", "a2", "a3", "a4"]
    assert len(set(desk.engine.rows)) == 4
    assert desk.scheduler.holder(2) is None
    assert desk.scheduler.holder(4) is desk.analyses["a4"]
    desk.end()


async def test_closing_a_row_twice_frees_one_place() -> None:
    """A row that is closed already gives nothing more."""
    desk = Desk()
    for name in ("a1", "a2", "a3", "a4", "a5"):
        desk.enter(name)
    desk.close("a1")
    desk.close("a1")
    assert desk.scheduler.rows_held == 3
    assert desk.waiting == ["a5"]
    desk.end()


async def test_without_lookahead_only_slots_are_filled() -> None:
    """A look-ahead of 0 hands the engine no row that cannot start."""
    desk = Desk(slots=1, lookahead=0)
    desk.enter("a1")
    desk.enter("a2")
    assert desk.engine.prompts == ["a1"]
    desk.end()


async def test_callers_share_the_places() -> None:
    """One that comes later passes a caller that holds its share."""
    desk = Desk(slots=2, lookahead=0)
    for name in ("a1", "a2", "a3", "b1"):
        desk.enter(name)
    desk.close("a1")
    assert desk.engine.prompts == ["a1", "a2", "b1"]
    desk.end()


async def test_a_row_carries_what_was_resolved() -> None:
    """The engine gets every value of the request after its defaults, and the caller as cache scope."""
    desk = Desk()
    sampling = Sampling(
        max_tokens=7,
        min_tokens=2,
        temperature=0.7,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        seed=11,
        stop=("x", "y"),
    )
    desk.enter("c1", sampling=sampling, instructions="Be brief.", token_ids=True)
    row = desk.engine.submitted[0]
    assert (row.prompt, row.instructions, row.cache_scope, row.details) == ("c1", "Be brief.", "c", True)
    told = {name: getattr(row.sampling, name) for name in Sampling.__dataclass_fields__}
    assert told == {name: getattr(sampling, name) for name in told}
    assert row.sampling.default_max_tokens == 512
    desk.end()


async def test_an_open_max_tokens_stays_open() -> None:
    """Where the caller did not say, the engine may stop at the context."""
    desk = Desk()
    desk.enter("a1")
    assert desk.engine.submitted[0].sampling.max_tokens is None
    assert not desk.engine.submitted[0].details
    desk.end()


async def test_a_row_is_submitted_when_its_images_are_decoded() -> None:
    """It holds its place from its turn on, and the engine gets it with its pictures."""
    desk = Desk()
    desk.enter("a1", decoding=True)
    desk.enter("a2")
    assert desk.engine.prompts == ["a2"]
    assert desk.stage_of("a1") is Stage.PREPARING
    assert desk.scheduler.rows_held == 2
    desk.decoded("a1")
    assert desk.engine.prompts == ["a2", "a1"]
    assert desk.engine.submitted[1].pictures == desk.analyses["a1"].pictures
    desk.end()


async def test_images_that_are_decoded_early_wait_for_their_turn() -> None:
    """Decoding that ends in the queue submits nothing yet."""
    desk = Desk(slots=1, lookahead=0)
    desk.enter("a1")
    desk.enter("a2", decoding=True)
    desk.decoded("a2")
    assert desk.engine.prompts == ["a1"]
    desk.close("a1")
    assert desk.engine.prompts == ["a1", "a2"]
    desk.end()


async def test_cancelled_in_the_queue_it_leaves_no_trace() -> None:
    """One that never had a row is gone at once, and the engine hears nothing."""
    desk = Desk(slots=1, lookahead=0)
    for name in ("a1", "a2", "a3"):
        desk.enter(name)
    desk.analyses["a2"].cancel()
    assert desk.waiting == ["a3"]
    assert desk.engine.cancelled == []
    desk.end()


async def test_cancelled_while_its_image_is_decoded_it_frees_its_place_at_once() -> None:
    """The engine never had the row, so the next one takes the place in the same moment."""
    desk = Desk(slots=1, lookahead=0)
    desk.enter("a1", decoding=True)
    desk.enter("a2")
    desk.analyses["a1"].cancel()
    assert desk.engine.prompts == ["a2"]
    assert desk.engine.cancelled == []
    assert desk.scheduler.rows_held == 1
    desk.end()


@pytest.mark.parametrize("reached", [None, Stage.PREFILL, Stage.GENERATING])
async def test_cancelled_in_the_engine_it_holds_its_place_until_the_row_is_closed(
    reached: Stage | None,
) -> None:
    """A slot counts as free when the engine says so, not before."""
    desk = Desk(slots=1, lookahead=0)
    desk.enter("a1")
    desk.enter("a2")
    if reached:
        desk.analyses["a1"].stage_reported(stage(1, reached))
    desk.analyses["a1"].cancel()
    assert desk.engine.cancelled == [1]
    assert desk.engine.prompts == ["a1"]
    assert desk.scheduler.holder(1) is desk.analyses["a1"]
    desk.close("a1")
    assert desk.engine.prompts == ["a1", "a2"]
    assert desk.scheduler.holder(1) is None
    desk.end()


async def test_nothing_is_dispatched_before_the_engine_is_ready() -> None:
    """While the model loads, those who come first are told so with its bytes; then they start in order."""
    desk = Desk(EngineState.LOADING)
    for name in ("a1", "a2", "a3"):
        desk.enter(name)
    desk.engine.become(EngineState.LOADING, loading=Loading(message="x", done_bytes=25, total_bytes=100))
    desk.scheduler.pump()
    assert desk.engine.rows == []
    assert [desk.stage_of(name) for name in ("a1", "a2", "a3")] == [
        Stage.LOADING_MODEL,
        Stage.LOADING_MODEL,
        Stage.QUEUED,
    ]
    tracker = desk.analyses["a1"].tracker
    assert (tracker.loaded_bytes, tracker.model_bytes) == (25, 100)
    desk.engine.become(EngineState.READY)
    desk.scheduler.pump()
    assert desk.engine.prompts == ["a1", "a2", "a3"]
    desk.end()


async def test_a_lost_engine_gives_back_what_had_not_started() -> None:
    """Rows that had come no further than preparation wait again, at the head and in order; the others are lost."""
    desk = Desk(slots=2, lookahead=2)
    for name in ("a1", "a2", "a3", "a4", "a5"):
        desk.enter(name)
    desk.analyses["a1"].stage_reported(stage(1, Stage.GENERATING))
    desk.analyses["a2"].stage_reported(stage(2, Stage.PREFILL))
    desk.engine.become(EngineState.DOWN)
    lost = desk.scheduler.lose_rows()
    assert [analysis.request.prompt for analysis in lost] == ["a1", "a2"]
    assert desk.waiting == ["a3", "a4", "a5"]
    assert desk.scheduler.rows_held == 0
    for analysis in lost:
        analysis.cancel()
    assert desk.engine.cancelled == [], "a row of a lost engine is nobody's to cancel"
    desk.engine.become(EngineState.READY)
    desk.scheduler.pump()
    assert desk.engine.prompts[4:] == ["a3", "a4", "a5"]
    assert len(set(desk.engine.rows)) == len(desk.engine.rows), "no row number is used twice"
    desk.end()


async def test_an_analysis_is_not_handed_to_one_engine_after_another_for_ever() -> None:
    """One that was with so many lost engines may be what kills them: it is given up."""
    desk = Desk()
    desk.enter("a1")
    lost: list[Analysis] = []
    for attempt in range(1, MAX_DISPATCHES + 1):
        assert len(desk.engine.rows) == attempt
        lost = desk.scheduler.lose_rows()
        desk.scheduler.pump()
    assert [analysis.request.prompt for analysis in lost] == ["a1"]
    assert desk.waiting == []
    desk.end()


async def test_a_row_whose_image_is_still_decoded_survives_any_number_of_engines() -> None:
    """Dispatches count when the engine gets the row."""
    desk = Desk()
    desk.enter("a1", decoding=True)
    for _ in range(MAX_DISPATCHES + 1):
        assert desk.scheduler.lose_rows() == []
        desk.scheduler.pump()
    desk.decoded("a1")
    assert desk.engine.prompts == ["a1"]
    desk.end()


async def test_decoding_that_ends_between_two_engines_submits_at_the_next_turn() -> None:
    """Nothing is sent to an engine that is not there."""
    desk = Desk()
    desk.enter("a1", decoding=True)
    desk.engine.become(EngineState.DOWN)
    desk.scheduler.lose_rows()
    desk.decoded("a1")
    assert desk.engine.prompts == []
    desk.engine.become(EngineState.READY)
    desk.scheduler.pump()
    assert desk.engine.prompts == ["a1"]
    desk.end()


async def test_a_cancelled_row_of_a_lost_engine_is_forgotten() -> None:
    """An ended analysis neither waits again nor is lost again."""
    desk = Desk()
    desk.enter("a1")
    desk.analyses["a1"].cancel()
    assert desk.scheduler.lose_rows() == []
    assert (desk.scheduler.waiting, desk.scheduler.rows_held) == (0, 0)


async def test_the_position_at_entry_counts_those_who_come_first() -> None:
    """Those handed ahead come first, then the line in the order of service."""
    desk = Desk(slots=1, lookahead=1)
    assert [desk.enter(name) for name in ("a1", "a2", "a3", "a4")] == [1, 1, 2, 3]
    desk.end()


async def test_the_position_at_entry_is_the_fair_one() -> None:
    """A new caller is told that it passes those of a caller at its share."""
    desk = Desk(slots=2, lookahead=0)
    for name in ("a1", "a2", "a3", "a4", "a5"):
        desk.enter(name)
    assert desk.enter("b1") == 1
    desk.end()


async def test_positions_are_told_as_the_line_moves() -> None:
    """Within a second or so after a place is freed, those who wait hear their new positions, each once."""
    desk = Desk(slots=1, lookahead=0)
    for name in ("a1", "a2", "a3"):
        desk.enter(name)
    desk.close("a1")
    await eventually(lambda: desk.positions_of("a3")[-1] == 1)
    assert desk.positions_of("a3") == [2, 1]
    desk.end()


async def test_positions_are_told_when_somebody_leaves_the_line() -> None:
    """One that is cancelled in the queue lets those behind it move up."""
    desk = Desk(slots=1, lookahead=0)
    for name in ("a1", "a2", "a3", "a4"):
        desk.enter(name)
    desk.close("a1")
    await eventually(lambda: desk.positions_of("a4")[-1] == 2)
    desk.analyses["a3"].cancel()
    await eventually(lambda: desk.positions_of("a4")[-1] == 1)
    desk.end()


async def test_positions_are_told_to_those_handed_ahead_when_nobody_waits_behind_them() -> None:
    """The last ones of a line move up too."""
    desk = Desk(slots=1, lookahead=2)
    for name in ("a1", "a2", "a3"):
        desk.enter(name)
    assert desk.positions_of("a3") == [2]
    desk.close("a1")
    desk.analyses["a2"].stage_reported(stage(2, Stage.PREFILL))
    await eventually(lambda: desk.positions_of("a3")[-1] == 1)
    desk.end()
