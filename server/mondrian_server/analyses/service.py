"""The analyses service: admission, and the way of every event from the engine to its analysis."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from mondrian_server import errors
from mondrian_server.analyses.analysis import Analysis
from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.analyses.resolution import Catalogue, Defaults, Resolved, resolve
from mondrian_server.analyses.scheduler import Scheduler, has_started
from mondrian_server.analyses.validation import RequestLimits, validate
from mondrian_server.engine.interface import Engine, EngineState, EngineStatus
from mondrian_server.engine.protocol import RowCancelled, RowDone, RowFailed, RowStage, RowTokens, RowUpdate, Step
from mondrian_server.events import Accepted, Cancelled, Completed, Event, Failed, Terminal
from mondrian_server.log.interface import EventLog
from mondrian_server.pictures import Picture
from mondrian_server.sampling import Sampling

_log = structlog.stdlib.get_logger(__name__)

HOPELESS_FAILURES = 3
"""After so many failed starts of the engine in a row, analyses are refused instead of kept waiting."""

_SHUTDOWN_RETRY_S = 5.0

_NO_LIMIT_S = 1e8
"""A limit of three years and more is none: it is beyond what clocks and timers can hold."""


class Decoder(Protocol):
    """What turns an image's bytes into a picture."""

    async def normalise(self, data: bytes, *, field: str) -> Picture:
        """Return the picture; raises InvalidImage naming `field`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How much may wait, and what one request may hold.

    deadline_margin_s: how long before a call's deadline the last events are written, so that they arrive in time.
    """

    max_waiting: int = 256
    max_waiting_bytes: int = 1 << 30
    deadline_margin_s: float = 0.25
    request: RequestLimits = field(default_factory=RequestLimits)


class AnalysesService:
    """Everything that is waiting or running. An `EngineListener`; for use on one event loop."""

    def __init__(
        self,
        *,
        limits: AdmissionLimits,
        defaults: Defaults,
        engine: Engine,
        scheduler: Scheduler,
        decoder: Decoder,
        advisors: Catalogue,
        log: EventLog,
    ) -> None:
        """Begin with nothing to do."""
        self._limits = limits
        self._defaults = defaults
        self._engine = engine
        self._scheduler = scheduler
        self._decoder = decoder
        self._advisors = advisors
        self._log = log
        self._live: dict[str, Analysis] = {}
        self._bytes_held = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def live(self) -> int:
        """How many analyses have not ended."""
        return len(self._live)

    @property
    def bytes_held(self) -> int:
        """Bytes of images and pictures held for analyses that have not started."""
        return self._bytes_held

    # What callers ask for.

    def check_room(self, new_bytes: int) -> None:
        """Raise TooManyAnalyses, TooManyBytes, EngineUnavailable or ShuttingDown if a request must be refused now.

        `new_bytes` are those of its images. A cheap look before the images are touched; `accept` looks again.
        """
        waiting, status = self._scheduler.waiting, self._engine.status
        if self._draining:
            raise errors.ShuttingDown("the server is ending", retry_after_s=_SHUTDOWN_RETRY_S)
        if _is_hopeless(status):
            raise _unavailable(status)
        if waiting >= self._limits.max_waiting:
            raise errors.TooManyAnalyses(
                f"{waiting} analyses are waiting, and no more may", retry_after_s=self._retry_after_s()
            )
        if new_bytes and self._bytes_held + new_bytes > self._limits.max_waiting_bytes:
            raise errors.TooManyBytes(
                "the images of waiting analyses fill the memory set aside for them", retry_after_s=self._retry_after_s()
            )

    def accept(self, request: AnalysisRequest, *, deadline_in_s: float | None) -> str:
        """Take a request on and return the analysis's name, `analyses/{id}`.

        Its images are decoded while it waits; a bad one fails the analysis.

        Args:
            request: what is asked for.
            deadline_in_s: seconds to the call's own deadline; None: it has none.

        Raises:
            InvalidRequest: a field breaks a rule.
            TooManyAnalyses, TooManyBytes, EngineUnavailable, ShuttingDown: not now.

        """
        self.check_room(sum(map(len, request.images)))
        validate(request, self._limits.request)
        resolved = resolve(request, self._defaults, self._advisors)
        analysis = Analysis(f"analyses/{uuid.uuid4().hex}", request, resolved, log=self._log, on_end=self._ended)
        self._live[analysis.name] = analysis
        self._idle.clear()
        self._bytes_held += analysis.bytes_held
        position = self._scheduler.enter(analysis)
        limit_s = _earlier(self._with_margin(deadline_in_s), request.time_limit_s)
        _log_acceptance(analysis.name, request, position)
        analysis.accept(self._accepted(resolved, position, limit_s), deadline_in_s=limit_s)
        if request.images:
            analysis.preparation = asyncio.create_task(self._decode(analysis, request.images))
        self._scheduler.pump()
        return analysis.name

    async def watch(self, name: str, after_sequence: int = 0) -> AsyncGenerator[Sequence[Event]]:
        """Yield the events after a sequence as they come, in groups, to the terminal one."""
        while True:
            events = self._log.read(name, after_sequence)
            if events:
                yield events
                if events[-1].is_terminal:
                    return
                after_sequence = events[-1].sequence
            await self._log.wait(name, after_sequence)

    def cancel(self, name: str) -> None:
        """End an analysis that is no longer wanted; one that has ended, or never was, is left alone."""
        analysis = self._live.get(name)
        if analysis is not None:
            analysis.cancel()

    def forget(self, name: str) -> None:
        """Drop an analysis and its log, cancelling it if it still runs."""
        self.cancel(name)
        self._log.delete(name)

    # What the operator asks for.

    async def drain(self, grace_s: float) -> None:
        """Refuse what is new, let the rest end for `grace_s` seconds, then fail what is left."""
        self._draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            self._fail_all(errors.ShuttingDown("the server is ending", retry_after_s=_SHUTDOWN_RETRY_S))

    # What the engine tells.

    def engine_changed(self, status: EngineStatus) -> None:
        """Fill a fresh engine's slots, and give up where there is no hope."""
        if _is_hopeless(status):
            self._fail_all(_unavailable(status))
        else:
            self._scheduler.pump()

    def engine_step(self, step: Step) -> None:
        """Pass each update on to its analysis."""
        for update in step.rows:
            analysis = self._scheduler.holder(update.row)
            if analysis is not None:
                analysis.tracker.peak_memory_bytes = step.peak_memory_bytes
                self._update_alone(analysis, update)

    def engine_lost(self) -> None:
        """Fail what had started; what had not waits again, at the head of the queue."""
        retry_after_s = self._engine.status.retry_after_s
        for analysis in self._scheduler.lose_rows():
            analysis.fail(errors.EngineLost("the engine was lost; try again", retry_after_s=retry_after_s))

    def _update_alone(self, analysis: Analysis, update: RowUpdate) -> None:
        """Pass an update on so that a defect ends this analysis, and neither the others nor the supervisor."""
        try:
            self._update(analysis, update)
        except Exception:
            _log.exception("an update failed", analysis=analysis.name)
            analysis.fail(errors.InternalError("the server has a defect; see its log"))

    def _update(self, analysis: Analysis, update: RowUpdate) -> None:
        match update:
            case RowTokens():
                analysis.tokens_generated(update)
            case RowStage():
                analysis.stage_reported(update)
                if has_started(analysis):
                    self._let_go_of_pictures(analysis)
            case RowDone():
                self._scheduler.free(analysis)
                analysis.row_done(update)
            case RowFailed():
                self._scheduler.free(analysis)
                analysis.fail(_row_error(update))
            case RowCancelled():
                self._scheduler.free(analysis)
                analysis.fail(errors.InternalError("the engine gave up the analysis unasked"))

    def _accepted(self, resolved: Resolved, position: int, limit_s: float | None) -> Accepted:
        model = self._engine.status.model
        return Accepted(
            model=resolved.model,
            advisor=resolved.advisor,
            sampling=resolved.sampling.over(Sampling(max_tokens=resolved.default_max_tokens)),
            context_tokens=model.context_tokens if model else 0,
            queue_position=position,
            deadline_time=None if limit_s is None else datetime.now(UTC) + timedelta(seconds=limit_s),
        )

    async def _decode(self, analysis: Analysis, images: Sequence[bytes]) -> None:
        """Decode the images while the analysis waits; a bad one ends it."""
        try:
            pictures = tuple(
                [
                    await self._decoder.normalise(image, field=f"config.images[{index}].data")
                    for index, image in enumerate(images)
                ]
            )
        except errors.MondrianError as error:
            analysis.preparation = None
            analysis.fail(error)
        except Exception:
            _log.exception("image decoding failed", analysis=analysis.name)
            analysis.preparation = None
            analysis.fail(errors.InternalError("the image could not be prepared"))
        else:
            analysis.preparation = None
            analysis.pictures = pictures
            self._hold(analysis, sum(len(picture.pixels) for picture in pictures))
            self._scheduler.prepared(analysis)

    def _ended(self, analysis: Analysis, terminal: Terminal) -> None:
        """Let go of everything that an ended analysis held."""
        del self._live[analysis.name]
        self._let_go_of_pictures(analysis)
        if analysis.preparation is not None:
            analysis.preparation.cancel()
        _log_end(analysis.name, terminal)
        self._scheduler.leave(analysis)
        if not self._live:
            self._idle.set()

    def _fail_all(self, error: errors.MondrianError) -> None:
        for analysis in list(self._live.values()):
            analysis.fail(error)

    def _let_go_of_pictures(self, analysis: Analysis) -> None:
        """Forget what only another dispatch would need."""
        analysis.pictures = ()
        self._hold(analysis, 0)

    def _hold(self, analysis: Analysis, count: int) -> None:
        self._bytes_held += count - analysis.bytes_held
        analysis.bytes_held = count

    def _with_margin(self, deadline_in_s: float | None) -> float | None:
        if deadline_in_s is None:
            return None
        return max(0.0, deadline_in_s - min(self._limits.deadline_margin_s, deadline_in_s / 4))

    def _retry_after_s(self) -> float:
        """Guess when there is room again: a second, and one more for each sixteen that wait."""
        return float(min(30, 1 + self._scheduler.waiting // 16))


def _log_acceptance(name: str, request: AnalysisRequest, position: int) -> None:
    _log.info(
        "accepted",
        analysis=name,
        caller=request.caller,
        request_id=request.request_id,
        prompt_characters=len(request.prompt),
        images=len(request.images),
        queue_position=position,
    )


def _log_end(name: str, terminal: Terminal) -> None:
    """Write one line about an end, with the error if there is one."""
    facts: dict[str, object] = {
        "output_tokens": terminal.usage.output_tokens,
        "total_s": round(terminal.timings.total_s or 0.0, 3),
    }
    match terminal:
        case Completed():
            _log.info("completed", analysis=name, finish_reason=terminal.finish_reason.name, **facts)
        case Cancelled():
            _log.info("cancelled", analysis=name, stage=terminal.stage.name, **facts)
        case Failed(error=error):
            _log.warning("failed", analysis=name, reason=error.reason, error=error.message, **facts)


def _row_error(update: RowFailed) -> errors.MondrianError:
    known = {kind.reason: kind for kind in (errors.ContextExceeded, errors.InvalidRequest)}
    return known.get(update.reason, errors.GenerationFailed)(update.message, field=update.field)


def _is_hopeless(status: EngineStatus) -> bool:
    return status.state is not EngineState.READY and status.failures >= HOPELESS_FAILURES


def _unavailable(status: EngineStatus) -> errors.EngineUnavailable:
    return errors.EngineUnavailable("the engine cannot be started at present", retry_after_s=status.retry_after_s)


def _earlier(one: float | None, other: float | None) -> float | None:
    """Return the earlier of two limits; None where there is none."""
    return min((value for value in (one, other) if value is not None and value < _NO_LIMIT_S), default=None)
