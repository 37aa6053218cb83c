"""The scheduler: who gets the engine's next slot, and who holds which row."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from mondrian_server.analyses.analysis import Analysis
from mondrian_server.analyses.positions import Positions
from mondrian_server.analyses.queue import FairQueue
from mondrian_server.engine.interface import Engine, EngineState
from mondrian_server.engine.protocol import RowSampling, Submit
from mondrian_server.events import Stage
from mondrian_server.pictures import Picture

ALONE_AFTER_CRASHES = 2
"""After so many crashes since its last token an analysis runs alone, so that the next one shows whose fault it is."""


class Scheduler:
    """The queue in front of the engine.

    The engine is handed a few rows more than it has slots, so that a freed slot is filled at the next step. A row is
    held from its dispatch until the engine has closed it, also when its analysis has ended long before.

    A caller that holds less than its share of the slots need not wait until others' analyses end: it is handed to the
    engine beyond the look-ahead, and there a row of the caller that holds the most gives way. That goes on later.
    """

    def __init__(
        self, engine: Engine, *, slots: int, lookahead: int, most_running: Callable[[str], int] = lambda _: 0
    ) -> None:
        """Begin with nobody waiting.

        Args:
            engine: what works on the rows.
            slots: rows that it works on at once.
            lookahead: rows that it is handed besides.
            most_running: gives the rows that a caller may have at once, 0: any number.

        """
        self._engine = engine
        self._slots = slots
        self._lookahead = lookahead
        self._queue: FairQueue[Analysis] = FairQueue(most_running)
        self._rows: dict[int, Analysis] = {}
        self._prepare: Callable[[Analysis], None] | None = None
        self._next_row = 1
        self._restrained = False
        self._paused = False
        self._positions = Positions(self._order)

    def prepare_by(self, prepare: Callable[[Analysis], None]) -> None:
        """Call `prepare` for each analysis with images that is given a row; it answers by `prepared` or `put_back`."""
        self._prepare = prepare

    @property
    def waiting(self) -> int:
        """How many analyses hold no row."""
        return len(self._queue)

    @property
    def waiting_by_caller(self) -> Mapping[str, int]:
        """How many of a caller's analyses hold no row."""
        return self._queue.by_caller

    @property
    def rows_held(self) -> int:
        """How many rows the engine has not closed."""
        return len(self._rows)

    @property
    def running(self) -> int:
        """How many analyses are at work in a slot."""
        return sum(not row.ended and row.tracker.stage >= Stage.PREPARING for row in self._rows.values())

    @property
    def oldest(self) -> Analysis | None:
        """The one that has waited longest of those who wait for a slot."""
        waiting = (*self._looked_ahead(), *itertools.islice(self._queue, 1))
        return min(waiting, key=lambda analysis: analysis.tracker.accepted_at, default=None)

    def holder(self, row: int) -> Analysis | None:
        """Return the analysis that holds a row."""
        return self._rows.get(row)

    def enter(self, analysis: Analysis) -> int:
        """Put an analysis at the end of the queue and return its position; `pump` sets it going."""
        self._queue.push(analysis)
        return next(position for position, other in enumerate(self._order(), start=1) if other is analysis)

    def leave(self, analysis: Analysis) -> None:
        """Take an ended analysis out, wherever it is; its row is free when the engine says so."""
        self._queue.remove(analysis)
        if analysis.submitted and analysis.row is not None:
            self._engine.cancel(analysis.row)
        else:
            self.free(analysis)
        self._positions.changed()

    def free(self, analysis: Analysis) -> None:
        """Note that the engine holds the analysis's row no more, and give the place to the next."""
        if analysis.row is not None:
            del self._rows[analysis.row]
            analysis.row, analysis.submitted = None, False
            self.pump()

    def gave_way(self, analysis: Analysis) -> None:
        """Let an analysis wait again, at the head of the queue, whose row has left its slot to another caller."""
        if analysis.row is not None and not analysis.ended:
            del self._rows[analysis.row]
            analysis.row, analysis.submitted = None, False
            analysis.make_way()
            self._queue.push_front(analysis)
            self.pump()
        else:
            self.free(analysis)

    def prepared(self, analysis: Analysis, pictures: Sequence[Picture]) -> None:
        """Hand an analysis with its pictures to the engine, unless its row was lost in the meantime."""
        if analysis.row is not None:
            self._submit(analysis, pictures)

    def put_back(self, analysis: Analysis) -> None:
        """Let an analysis whose pictures cannot be had now wait again, at the head of the queue.

        Its turn comes at once where the log is back already; while it is not, the scheduler is paused.
        """
        if analysis.row is not None:
            del self._rows[analysis.row]
            analysis.row = None
            self._queue.push_front(analysis)
            self.pump()

    def pause(self, paused: bool) -> None:
        """Hand the engine nothing more, or go on."""
        self._paused = paused
        self.pump()

    def pump(self) -> None:
        """Hand the next analyses to the engine as long as it has room, or tell them that the model is being loaded."""
        state = self._engine.status.state
        self._restrained = False
        if state is EngineState.READY:
            while (
                not self._paused
                and (head := self._queue.peek(self._running(), self._slots))
                and self._has_room_for(head)
            ):
                self._queue.remove(head)
                self._dispatch(head)
        elif state is EngineState.LOADING:
            self._show_loading()
        self._positions.changed()

    def relent(self) -> None:
        """Go on if everybody waited for a suspect to finish alone, and it is none any more."""
        if self._restrained and not self._runs_suspect():
            self.pump()

    def lose_rows(self) -> list[Analysis]:
        """Take back every row of a lost engine; return the active analyses that the engine had in hand, oldest first.

        They wait again, at the head of the queue and in their old order, as do those that it did not have yet.
        """
        lost = [analysis for analysis in self._rows.values() if not analysis.ended]
        in_hand = [analysis for analysis in lost if analysis.submitted]
        for analysis in self._rows.values():
            analysis.row, analysis.submitted = None, False
        self._rows.clear()
        for analysis in reversed(lost):
            self._queue.push_front(analysis)
        return in_hand

    def __iter__(self) -> Iterator[Analysis]:
        """Iterate over the waiting, in order of arrival."""
        return iter(self._queue)

    def _has_room_for(self, analysis: Analysis) -> bool:
        """Return whether there is a place for an analysis; a suspect gets none beside others, nor they beside it."""
        if not self._rows:
            return True
        self._restrained = self._runs_suspect()
        if self._restrained or _is_suspect(analysis):
            return False
        if len(self._rows) < self._slots + self._lookahead:
            return True
        running = self._running()
        own, most = running[analysis.caller], max(running.values())
        is_owed = own < self._queue.share(running, self._slots) and own + 1 < most
        return is_owed and len(self._rows) < 2 * self._slots + self._lookahead

    def _runs_suspect(self) -> bool:
        return any(_is_suspect(row) for row in self._rows.values())

    def _dispatch(self, analysis: Analysis) -> None:
        """Give an analysis its row; the engine gets it now, or as soon as its pictures are there."""
        analysis.row = self._next_row
        self._next_row += 1
        starts_now = len(self._rows) < self._slots
        self._rows[analysis.row] = analysis
        if starts_now:
            analysis.enter(Stage.PREPARING)
        if analysis.spec.image_count == 0:
            self._submit(analysis, ())
        elif self._prepare is not None:
            self._prepare(analysis)

    def _submit(self, analysis: Analysis, pictures: Sequence[Picture]) -> None:
        assert analysis.row is not None
        analysis.submitted, analysis.begun = True, False
        self._engine.submit(_to_submit(analysis, analysis.row, pictures))

    def _running(self) -> Counter[str]:
        return Counter(analysis.caller for analysis in self._rows.values())

    def _looked_ahead(self) -> list[Analysis]:
        """Return those that the engine holds ready, but that no slot has been free for."""
        return [row for row in self._rows.values() if not row.ended and row.tracker.stage is Stage.QUEUED]

    def _order(self) -> Iterator[Analysis]:
        """Iterate over those who wait for a slot, in the order in which they would get one."""
        yield from self._looked_ahead()
        yield from self._queue.order(self._running(), self._slots)

    def _show_loading(self) -> None:
        """Tell those who come first that the model is being loaded."""
        loading = self._engine.status.loading
        for analysis in list(self._queue)[: self._slots]:
            if loading is not None:
                analysis.tracker.loaded_bytes = loading.done_bytes
                analysis.tracker.model_bytes = loading.total_bytes
                analysis.tracker.downloading = loading.downloading
            analysis.enter(Stage.LOADING_MODEL)


def _is_suspect(analysis: Analysis) -> bool:
    return analysis.crashes >= ALONE_AFTER_CRASHES


def _to_submit(analysis: Analysis, row: int, pictures: Sequence[Picture]) -> Submit:
    request, resolved = analysis.spec.request, analysis.spec.resolved
    sampling = resolved.sampling
    return Submit(
        row=row,
        instructions=resolved.instructions,
        prompt=request.prompt,
        pictures=tuple(pictures),
        sampling=RowSampling(
            max_tokens=sampling.max_tokens,
            default_max_tokens=resolved.default_max_tokens,
            min_tokens=sampling.min_tokens or 0,
            temperature=sampling.temperature or 0.0,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            top_k=sampling.top_k or 0,
            min_p=sampling.min_p or 0.0,
            repetition_penalty=1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty,
            seed=sampling.seed or 0,
            stop=sampling.stop,
        ),
        cache_scope=analysis.caller,
        details=request.log_probabilities,
        prior_ids=tuple(analysis.ids),
    )
