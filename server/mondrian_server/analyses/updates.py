"""Updates: what the engine and the log tell, on its way to the analyses that it concerns."""

import contextlib
from collections.abc import Generator, Sequence

import structlog

from mondrian_server import errors
from mondrian_server.analyses.analysis import Analysis
from mondrian_server.analyses.scheduler import ALONE_AFTER_CRASHES, Scheduler
from mondrian_server.engine.interface import Engine, EngineStatus
from mondrian_server.engine.protocol import (
    RowCancelled,
    RowDone,
    RowFailed,
    RowGaveWay,
    RowStage,
    RowTokens,
    RowUpdate,
    Step,
)

_log = structlog.stdlib.get_logger(__name__)


class Updates:
    """Passes each update on to its analysis. An `EngineListener`; for use on one event loop."""

    def __init__(self, engine: Engine, scheduler: Scheduler) -> None:
        """Pass on what an engine tells of the rows that a scheduler gave it."""
        self._engine = engine
        self._scheduler = scheduler

    def log_changed(self, available: bool) -> None:
        """Start nothing while events cannot be kept: what is running already fills the memory with what waits."""
        self._scheduler.pause(not available)

    def engine_changed(self, status: EngineStatus) -> None:
        """Fill a fresh engine's slots."""
        del status
        self._scheduler.pump()

    def engine_step(self, step: Step) -> None:
        """Pass each update on to its analysis."""
        for update in step.rows:
            analysis = self._scheduler.holder(update.row)
            if analysis is not None:
                analysis.tracker.peak_memory_bytes = step.peak_memory_bytes
                with _alone(analysis):
                    self._update(analysis, update)
        self._scheduler.relent()

    def engine_lost(self) -> None:
        """Let everything that the engine had wait again; end what it has crashed over alone."""
        in_hand = self._scheduler.lose_rows()
        blamed = () if self._engine.status.killed_from_outside else _blamed(in_hand)
        for analysis in in_hand:
            with _alone(analysis):
                analysis.flush_rest()  # Crashes count from the last token that is kept.
                analysis.crashes += analysis in blamed
                if analysis.crashes > ALONE_AFTER_CRASHES:
                    analysis.fail(_crashed(analysis.crashes))
                else:
                    analysis.interrupt()

    def _update(self, analysis: Analysis, update: RowUpdate) -> None:
        match update:
            case RowTokens():
                analysis.tokens_generated(update)
            case RowStage():
                analysis.stage_reported(update)
            case RowDone():
                self._scheduler.free(analysis)
                analysis.row_done(update)
            case RowFailed():
                self._scheduler.free(analysis)
                analysis.fail(_row_error(update))
            case RowGaveWay():
                self._scheduler.gave_way(analysis)
            case RowCancelled():
                self._scheduler.free(analysis)
                analysis.fail(errors.InternalError("the engine gave up the analysis unasked"))


def _blamed(in_hand: Sequence[Analysis]) -> Sequence[Analysis]:
    """Return those that the engine may have crashed over: what it had begun with, else what comes first."""
    return [analysis for analysis in in_hand if analysis.begun] or in_hand[:1]


@contextlib.contextmanager
def _alone(analysis: Analysis) -> Generator[None]:
    """Have a defect end this analysis, and neither the others nor the supervisor."""
    try:
        yield
    except Exception:
        _log.exception("an update failed", analysis=analysis.name)
        analysis.fail(errors.InternalError("the server has a defect; see its log"))


def _crashed(times: int) -> errors.EngineCrashed:
    return errors.EngineCrashed(f"the engine crashed {times} times over this analysis")


def _row_error(update: RowFailed) -> errors.MondrianError:
    known = {kind.reason: kind for kind in (errors.ContextExceeded, errors.InvalidRequest)}
    return known.get(update.reason, errors.GenerationFailed)(update.message, field=update.field)
