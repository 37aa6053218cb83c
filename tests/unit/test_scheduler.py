"""The scheduler: who gets the engine's next place, and what becomes of rows when the engine is lost."""

from dataclasses import fields, replace

import pytest

from mondrian_server.analyses.analysis import Analysis
from mondrian_server.analyses.request import AnalysisRequest, Delivery
from mondrian_server.analyses.resolution import Defaults, resolve
from mondrian_server.analyses.scheduler import ALONE_AFTER_CRASHES, Scheduler
from mondrian_server.analyses.spec import Spec
from mondrian_server.engine.interface import EngineState
from mondrian_server.engine.protocol import Loading, RowSampling
from mondrian_server.events import Accepted, Progress, Stage, Terminal
from mondrian_server.pictures import Picture
from mondrian_server.sampling import Sampling
from tests.conditions import eventually
from tests.unit.office import TestableLog
from tests.unit.stand_ins import ADVISORS, ScriptedEngine, stage, tokens

PICTURE = Picture(width=1, height=1, pixels=b"rgb", digest=b"d")


class Desk:
    """A scheduler with two slots and one place of look-ahead, and the analyses that were put before it."""

    def __init__(
        self, log: TestableLog, state: EngineState = EngineState.READY, *, slots: int = 2, lookahead: int = 1
    ) -> None:
        """Begin with nobody waiting."""
        self.engine = ScriptedEngine(state)
        self.scheduler = Scheduler(self.engine, slots=slots, lookahead=lookahead)
        self.preparing: list[Analysis] = []
        self.scheduler.prepare_by(self.preparing.append)
        self.log = log
        self.analyses: dict[str, Analysis] = {}

    async def enter(self, *names: str, decoding: bool = False, **changes: object) -> int:
        """Put analyses before the scheduler, their first letters are their callers; return the last one's position."""
        position = 0
        for name in names:
            position = await self._enter(name, decoding=decoding, **changes)
        return position

    async def _enter(self, name: str, *, decoding: bool, **changes: object) -> int:
        delivery = Delivery(token_interval_s=0.0, progress_interval_s=60.0)
        request = replace(AnalysisRequest(prompt=name, caller=name[0], delivery=delivery), **changes)
        resolved = resolve(request, Defaults(model="tiny"), ADVISORS)
        spec = Spec(request=request, resolved=resolved, image_count=int(decoding))
        await self.log.begin(f"analyses/{name}", spec)
        analysis = Analysis(f"analyses/{name}", spec, caller=name[0], log=self.log, on_end=self._ended)
        self.analyses[name] = analysis
        position = self.scheduler.enter(analysis)
        analysis.accept(
            Accepted(
                model="models/tiny",
                advisor="",
                sampling=spec.resolved.sampling,
                context_tokens=0,
                queue_position=position,
            )
        )
        self.scheduler.pump()
        return position

    def _ended(self, analysis: Analysis, _: Terminal) -> None:
        self.scheduler.leave(analysis)

    def decoded(self, name: str) -> None:
        """End the decoding of an analysis's picture."""
        self.preparing.remove(self.analyses[name])
        self.scheduler.prepared(self.analyses[name], [PICTURE])

    def close(self, name: str) -> None:
        """Let the engine close the row of an analysis."""
        self.scheduler.free(self.analyses[name])

    @property
    def waiting(self) -> list[str]:
        """The prompts of those who hold no row."""
        return [analysis.spec.request.prompt for analysis in self.scheduler]

    def stage_of(self, name: str) -> Stage:
        """Return an analysis's stage."""
        return self.analyses[name].tracker.stage

    def positions_of(self, name: str) -> list[int]:
        """Return the queue positions that an analysis was told."""
        events = self.log.written[f"analyses/{name}"]
        return [e.payload.queue_position for e in events if isinstance(e.payload, Progress)]

    def end(self) -> None:
        """Cancel everything, so that no timer is left."""
        for analysis in self.analyses.values():
            analysis.cancel()


async def test_rows_are_dispatched_in_order_up_to_the_slots_and_the_lookahead(log: TestableLog) -> None:
    """Two run, one is ready for the next free slot, the others wait."""
    desk = Desk(log)
    await desk.enter("a1", "a2", "a3", "a4", "a5")
    assert desk.engine.prompts == ["a1", "a2", "a3"]
    assert desk.waiting == ["a4", "a5"]
    assert (desk.scheduler.waiting, desk.scheduler.rows_held) == (2, 3)
    assert [desk.stage_of(name) for name in ("a1", "a2", "a3")] == [Stage.PREPARING, Stage.PREPARING, Stage.QUEUED]
    desk.end()


async def test_a_closed_row_gives_its_place_to_the_next(log: TestableLog) -> None:
    """The place is filled in the same moment, and every row has a number of its own."""
    desk = Desk(log)
    await desk.enter("a1", "a2", "a3", "a4", "a5")
    desk.close("a2")
    assert desk.engine.prompts == ["a1", "a2", "a3", "a4"]
    assert len(set(desk.engine.rows)) == 4
    assert desk.scheduler.holder(2) is None
    assert desk.scheduler.holder(4) is desk.analyses["a4"]
    desk.end()


async def test_closing_a_row_twice_frees_one_place(log: TestableLog) -> None:
    """A row that is closed already gives nothing more."""
    desk = Desk(log)
    await desk.enter("a1", "a2", "a3", "a4", "a5")
    desk.close("a1")
    desk.close("a1")
    assert desk.scheduler.rows_held == 3
    assert desk.waiting == ["a5"]
    desk.end()


async def test_without_lookahead_only_slots_are_filled(log: TestableLog) -> None:
    """A look-ahead of 0 hands the engine no row that cannot start."""
    desk = Desk(log, slots=1, lookahead=0)
    await desk.enter("a1")
    await desk.enter("a2")
    assert desk.engine.prompts == ["a1"]
    desk.end()


async def test_callers_share_the_places(log: TestableLog) -> None:
    """One that comes later passes a caller that holds its share."""
    desk = Desk(log, slots=2, lookahead=0)
    await desk.enter("a1", "a2", "a3", "b1")
    desk.close("a1")
    assert desk.engine.prompts == ["a1", "a2", "b1"]
    desk.end()


async def test_a_row_carries_what_was_resolved(log: TestableLog) -> None:
    """The engine gets every value of the request after its defaults, the caller as cache scope, and no prior ids."""
    desk = Desk(log)
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
    await desk.enter("c1", sampling=sampling, instructions="Be brief.", log_probabilities=True)
    row = desk.engine.submitted[0]
    assert (row.prompt, row.instructions, row.cache_scope, row.details) == ("c1", "Be brief.", "c", True)
    told = {field.name: getattr(row.sampling, field.name) for field in fields(Sampling)}
    assert told == {name: getattr(sampling, name) for name in told}
    assert {*told, "default_max_tokens"} == set(RowSampling.__struct_fields__)
    assert row.sampling.default_max_tokens == 512
    assert row.prior_ids == ()
    desk.end()


async def test_an_open_max_tokens_stays_open(log: TestableLog) -> None:
    """Where the caller did not say, the engine may stop at the context."""
    desk = Desk(log)
    await desk.enter("a1")
    assert desk.engine.submitted[0].sampling.max_tokens is None
    assert not desk.engine.submitted[0].details
    desk.end()


async def test_a_row_is_submitted_when_its_images_are_decoded(log: TestableLog) -> None:
    """It holds its place from its turn on, and the engine gets it with its pictures."""
    desk = Desk(log)
    await desk.enter("a1", decoding=True)
    await desk.enter("a2")
    assert desk.engine.prompts == ["a2"]
    assert desk.stage_of("a1") is Stage.PREPARING
    assert desk.scheduler.rows_held == 2
    desk.decoded("a1")
    assert desk.engine.prompts == ["a2", "a1"]
    assert desk.engine.submitted[1].pictures == (PICTURE,)
    desk.end()


async def test_images_are_not_touched_before_their_turn(log: TestableLog) -> None:
    """Decoding begins when the analysis has a row, not while it waits."""
    desk = Desk(log, slots=1, lookahead=0)
    await desk.enter("a1")
    await desk.enter("a2", decoding=True)
    assert desk.preparing == []
    desk.close("a1")
    assert desk.preparing == [desk.analyses["a2"]]
    desk.decoded("a2")
    assert desk.engine.prompts == ["a1", "a2"]
    desk.end()


async def test_one_whose_pictures_cannot_be_had_now_waits_for_the_next_turn(log: TestableLog) -> None:
    """It stands at the head of the queue, and its row is free; nothing is tried again before somebody says so."""
    desk = Desk(log, slots=1, lookahead=0)
    await desk.enter("a1", decoding=True)
    await desk.enter("a2")
    desk.scheduler.pause(True)
    desk.scheduler.put_back(desk.analyses["a1"])
    assert desk.waiting == ["a1", "a2"]
    assert desk.scheduler.rows_held == 0
    desk.scheduler.pause(False)
    desk.decoded("a1")
    assert desk.engine.prompts == ["a1"]
    desk.end()


async def test_cancelled_in_the_queue_it_leaves_no_trace(log: TestableLog) -> None:
    """One that never had a row is gone at once, and the engine hears nothing."""
    desk = Desk(log, slots=1, lookahead=0)
    await desk.enter("a1", "a2", "a3")
    desk.analyses["a2"].cancel()
    assert desk.waiting == ["a3"]
    assert desk.engine.cancelled == []
    desk.end()


async def test_cancelled_while_its_image_is_decoded_it_frees_its_place_at_once(log: TestableLog) -> None:
    """The engine never had the row, so the next one takes the place in the same moment."""
    desk = Desk(log, slots=1, lookahead=0)
    await desk.enter("a1", decoding=True)
    await desk.enter("a2")
    desk.analyses["a1"].cancel()
    assert desk.engine.prompts == ["a2"]
    assert desk.engine.cancelled == []
    assert desk.scheduler.rows_held == 1
    desk.end()


@pytest.mark.parametrize("reached", [None, Stage.PREFILL, Stage.GENERATING])
async def test_cancelled_in_the_engine_it_holds_its_place_until_the_row_is_closed(
    log: TestableLog, reached: Stage | None
) -> None:
    """A slot counts as free when the engine says so, not before."""
    desk = Desk(log, slots=1, lookahead=0)
    await desk.enter("a1")
    await desk.enter("a2")
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


async def test_nothing_is_dispatched_before_the_engine_is_ready(log: TestableLog) -> None:
    """While the model loads, those who come first are told so with its bytes; then they start in order."""
    desk = Desk(log, EngineState.LOADING)
    await desk.enter("a1", "a2", "a3")
    desk.engine.become(
        EngineState.LOADING, loading=Loading(message="x", done_bytes=25, total_bytes=100, downloading=True)
    )
    desk.scheduler.pump()
    assert desk.engine.rows == []
    assert [desk.stage_of(name) for name in ("a1", "a2", "a3")] == [
        Stage.LOADING_MODEL,
        Stage.LOADING_MODEL,
        Stage.QUEUED,
    ]
    tracker = desk.analyses["a1"].tracker
    assert (tracker.loaded_bytes, tracker.model_bytes, tracker.downloading) == (25, 100, True)
    desk.engine.become(EngineState.READY)
    desk.scheduler.pump()
    assert desk.engine.prompts == ["a1", "a2", "a3"]
    desk.end()


async def test_a_lost_engine_gives_everything_back(log: TestableLog) -> None:
    """Every row that it had in hand waits again, at the head and in the old order, whatever stage it had reached."""
    desk = Desk(log, slots=2, lookahead=2)
    await desk.enter("a1", "a2", "a3", "a4", "a5")
    desk.analyses["a1"].stage_reported(stage(1, Stage.GENERATING))
    desk.analyses["a2"].stage_reported(stage(2, Stage.PREFILL))
    desk.engine.become(EngineState.DOWN)
    lost = desk.scheduler.lose_rows()
    assert [analysis.spec.request.prompt for analysis in lost] == ["a1", "a2", "a3", "a4"]
    assert desk.waiting == ["a1", "a2", "a3", "a4", "a5"]
    assert desk.scheduler.rows_held == 0
    desk.analyses["a1"].cancel()
    assert desk.engine.cancelled == [], "a row of a lost engine is nobody's to cancel"
    desk.engine.become(EngineState.READY)
    desk.scheduler.pump()
    assert desk.engine.prompts[4:] == ["a2", "a3", "a4", "a5"]
    assert len(set(desk.engine.rows)) == len(desk.engine.rows), "no row number is used twice"
    desk.end()


async def test_a_row_goes_on_after_its_tokens(log: TestableLog) -> None:
    """The next engine is told the ids of all tokens that are in the log, and nothing of others."""
    desk = Desk(log)
    await desk.enter("a1", "a2")
    desk.analyses["a1"].stage_reported(stage(1, Stage.GENERATING))
    for id_ in (11, 12):
        desk.analyses["a1"].tokens_generated(tokens(1, "x", ids=(id_,)))
    for analysis in desk.scheduler.lose_rows():
        analysis.interrupt()
    desk.scheduler.pump()
    assert [row.prior_ids for row in desk.engine.submitted[2:]] == [(11, 12), ()]
    desk.end()


async def test_a_suspect_runs_alone(log: TestableLog) -> None:
    """One that crashed too often waits until nothing else runs, and while it runs, everybody waits."""
    desk = Desk(log, slots=3, lookahead=2)
    await desk.enter("a1")
    await desk.enter("a2", "a3", decoding=True)
    desk.analyses["a2"].crashes = ALONE_AFTER_CRASHES
    for analysis in desk.scheduler.lose_rows():
        analysis.interrupt()
    desk.scheduler.pump()
    assert desk.engine.prompts == ["a1", "a1"]
    assert desk.waiting == ["a2", "a3"], "the suspect waits for a1, and a3 does not pass it"
    desk.close("a1")
    assert desk.scheduler.rows_held == 1
    assert desk.waiting == ["a3"]
    desk.decoded("a2")
    assert desk.engine.prompts[2:] == ["a2"]
    await desk.enter("b1")
    assert desk.waiting == ["a3", "b1"], "neither caller's share nor an empty slot helps beside a suspect"
    desk.analyses["a2"].cancel()
    assert desk.waiting == ["a3", "b1"], "a suspect's row counts until the engine has closed it"
    desk.close("a2")
    desk.decoded("a3")
    assert set(desk.engine.prompts[3:]) == {"a3", "b1"}
    desk.end()


async def test_two_suspects_run_one_after_the_other(log: TestableLog) -> None:
    """Each is alone in its turn."""
    desk = Desk(log, slots=4)
    await desk.enter("a1", "a2", "a3")
    for analysis in desk.scheduler.lose_rows():
        analysis.crashes = ALONE_AFTER_CRASHES
    desk.scheduler.pump()
    for name in ("a1", "a2", "a3"):
        assert desk.engine.prompts[-1] == name
        assert desk.scheduler.rows_held == 1
        desk.close(name)
    desk.end()


@pytest.mark.parametrize("crashes", range(ALONE_AFTER_CRASHES))
async def test_fewer_crashes_are_no_suspicion(log: TestableLog, crashes: int) -> None:
    """One that crashed less often runs beside others."""
    desk = Desk(log)
    await desk.enter("a1", "a2")
    for analysis in desk.scheduler.lose_rows():
        analysis.crashes = crashes
    desk.scheduler.pump()
    assert desk.engine.prompts[2:] == ["a1", "a2"]
    desk.end()


async def test_a_row_whose_image_is_still_decoded_was_not_in_the_engines_hand(log: TestableLog) -> None:
    """It waits again, and no crash is its fault."""
    desk = Desk(log)
    await desk.enter("a1", decoding=True)
    for _ in range(ALONE_AFTER_CRASHES + 1):
        assert desk.scheduler.lose_rows() == []
        assert desk.waiting == ["a1"]
        desk.scheduler.pump()
    desk.decoded("a1")
    assert desk.engine.prompts == ["a1"]
    desk.end()


async def test_decoding_that_ends_between_two_engines_submits_at_the_next_turn(log: TestableLog) -> None:
    """Nothing is sent to an engine that is not there."""
    desk = Desk(log)
    await desk.enter("a1", decoding=True)
    desk.engine.become(EngineState.DOWN)
    desk.scheduler.lose_rows()
    desk.decoded("a1")
    assert desk.engine.prompts == []
    desk.engine.become(EngineState.READY)
    desk.scheduler.pump()
    desk.decoded("a1")
    assert desk.engine.prompts == ["a1"]
    desk.end()


async def test_a_cancelled_row_of_a_lost_engine_is_forgotten(log: TestableLog) -> None:
    """An ended analysis neither waits again nor is lost again."""
    desk = Desk(log)
    await desk.enter("a1")
    desk.analyses["a1"].cancel()
    assert desk.scheduler.lose_rows() == []
    assert (desk.scheduler.waiting, desk.scheduler.rows_held) == (0, 0)


async def test_the_position_at_entry_counts_those_who_come_first(log: TestableLog) -> None:
    """Those handed ahead come first, then the line in the order of service."""
    desk = Desk(log, slots=1, lookahead=1)
    assert [await desk.enter(name) for name in ("a1", "a2", "a3", "a4")] == [1, 1, 2, 3]
    desk.end()


async def test_the_position_at_entry_is_the_fair_one(log: TestableLog) -> None:
    """A new caller is told that it passes those of a caller at its share."""
    desk = Desk(log, slots=2, lookahead=0)
    await desk.enter("a1", "a2", "a3", "a4", "a5")
    assert await desk.enter("b1") == 1
    desk.end()


async def test_positions_are_told_as_the_line_moves(log: TestableLog) -> None:
    """Within a second or so after a place is freed, those who wait hear their new positions, each once."""
    desk = Desk(log, slots=1, lookahead=0)
    await desk.enter("a1", "a2", "a3")
    desk.close("a1")
    await eventually(lambda: desk.positions_of("a3")[-1] == 1)
    assert desk.positions_of("a3") == [2, 1]
    desk.end()


async def test_the_positions_of_a_long_line_are_told_a_few_at_a_time(log: TestableLog) -> None:
    """The loop has time for others in between, and a change that comes meanwhile is told afterwards."""
    desk = Desk(log, slots=1, lookahead=0)
    names = [f"a{number}" for number in range(101)]
    await desk.enter(*names)
    desk.close("a0")
    await eventually(lambda: desk.positions_of("a2")[-1] == 1)
    assert desk.positions_of("a100") == [100], "the last ones are told a moment later"
    desk.close("a1")
    await eventually(lambda: desk.positions_of("a100")[-1] == 98)
    assert desk.positions_of("a100") == [100, 99, 98]
    desk.end()


async def test_positions_are_told_when_somebody_leaves_the_line(log: TestableLog) -> None:
    """One that is cancelled in the queue lets those behind it move up."""
    desk = Desk(log, slots=1, lookahead=0)
    await desk.enter("a1", "a2", "a3", "a4")
    desk.close("a1")
    await eventually(lambda: desk.positions_of("a4")[-1] == 2)
    desk.analyses["a3"].cancel()
    await eventually(lambda: desk.positions_of("a4")[-1] == 1)
    desk.end()


async def test_positions_are_told_to_those_handed_ahead_when_nobody_waits_behind_them(log: TestableLog) -> None:
    """The last ones of a line move up too."""
    desk = Desk(log, slots=1, lookahead=2)
    await desk.enter("a1", "a2", "a3")
    assert desk.positions_of("a3") == [2]
    desk.close("a1")
    desk.analyses["a2"].stage_reported(stage(2, Stage.PREFILL))
    await eventually(lambda: desk.positions_of("a3")[-1] == 1)
    desk.end()
