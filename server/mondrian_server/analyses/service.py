"""The analyses service: what callers can do with analyses, and the way of each event from the engine to its own."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NoReturn

import structlog

from mondrian_server import errors
from mondrian_server.analyses.admission import Admission, AdmissionLimits
from mondrian_server.analyses.analysis import Analysis
from mondrian_server.analyses.observing import UNOBSERVED, Observer
from mondrian_server.analyses.preparation import Decoder, Preparation
from mondrian_server.analyses.reporting import log_acceptance, log_end
from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.analyses.resolution import Catalogue, Defaults, resolve
from mondrian_server.analyses.scheduler import ALONE_AFTER_CRASHES, Scheduler
from mondrian_server.analyses.spec import Spec, decode_spec, digest_of, encode_spec
from mondrian_server.analyses.validation import validate
from mondrian_server.analyses.view import View, view_of
from mondrian_server.analyses.watching import Watches, known, own_record
from mondrian_server.callers import Allowances
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
from mondrian_server.events import Accepted, Event, Failed, Progress, Terminal
from mondrian_server.log.interface import EventLog, Record, RequestIdTaken, State

_log = structlog.stdlib.get_logger(__name__)

CANCEL_PATIENCE_S = 5.0
"""How long a cancel waits for the log to keep the end."""

LEASE_S = 30.0
"""How long a server holds its analyses without a heartbeat. A log of one server takes no notice of it."""


class AnalysesService:
    """Every analysis, active or ended. An `EngineListener`; for use on one event loop."""

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
        observer: Observer = UNOBSERVED,
        allowances: Allowances | None = None,
    ) -> None:
        """Begin with nothing to do; `recover` takes up what an earlier life of the server left."""
        self._limits = limits
        self._defaults = defaults
        self._engine = engine
        self._scheduler = scheduler
        self._advisors = advisors
        self._log = log
        self._observer = observer
        self._owner = uuid.uuid4().hex
        self._admission = Admission(limits, allowances or Allowances())
        self._live: dict[str, Analysis] = {}
        self._watches = Watches(log, self._live)
        self._idle = asyncio.Event()
        self._idle.set()
        scheduler.prepare_by(Preparation(log, decoder, scheduler, release=self._release).begin)

    @property
    def live(self) -> int:
        """How many analyses are active."""
        return len(self._live)

    @property
    def bytes_held(self) -> int:
        """Bytes of the image files of analyses that have not started."""
        return self._admission.bytes_held

    @property
    def watchers(self) -> int:
        """How many read an analysis's events at this moment."""
        return self._watches.count

    # What callers ask for.

    def check_room(self, new_bytes: int, caller: str) -> None:
        """Raise the error that tells why a caller's request must be refused now, if it must.

        `new_bytes` are those of its images. A cheap look before the images are touched; `create` looks again.
        """
        error = self.refusal(new_bytes, caller)
        if error is not None:
            self.refuse(error)

    def refusal(self, new_bytes: int, caller: str) -> errors.MondrianError | None:
        """Return the error that `check_room` would raise."""
        try:
            self._admission.check(
                caller,
                new_bytes,
                waiting=self._scheduler.waiting_by_caller,
                status=self._engine.status,
                log_available=self._log.available,
            )
        except errors.MondrianError as error:
            return error
        return None

    def refuse(self, error: errors.MondrianError) -> NoReturn:
        """Refuse a request, and count that."""
        self._observer.refused(error)
        raise error

    async def create(
        self, request: AnalysisRequest, *, deadline_in_s: float | None = None, disconnect_grace_s: float | None = None
    ) -> str:
        """Take a request on and return the analysis's name, `analyses/{id}`, once it is kept.

        The caller's `request_id` of an earlier request returns that one's analysis. The images are decoded when its
        turn comes; a bad one fails the analysis. If the awaiting task is cancelled, the analysis is let go as by
        `let_go`.

        Args:
            request: what is asked for.
            deadline_in_s: seconds to the call's own deadline; None: it has none.
            disconnect_grace_s: what `let_go` grants; None: the analysis is detached.

        Raises:
            InvalidRequest: a field breaks a rule, RequestIdReused among them.
            TooManyAnalyses, TooManyBytes, TooManyRequests: not now, because of what waits or the caller's own limits.
            EngineUnavailable, LogUnavailable, ShuttingDown: not now.
        """
        work = asyncio.create_task(self._create(request, deadline_in_s, disconnect_grace_s))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(self._let_go_of_result)
            raise

    async def watch(self, name: str, caller: str, after_sequence: int = 0) -> AsyncGenerator[Sequence[Event]]:
        """Yield the events after a sequence in groups, as they are kept, to the terminal one.

        Raises:
            AnalysisNotFound: there is none, or it is deleted in between.
            EventsExpired: the events were deleted.
            ShuttingDown: the server ends before the analysis does.
        """
        async with contextlib.aclosing(self._watches.follow(name, caller, after_sequence)) as groups:
            async for events in groups:
                yield events

    async def get(self, name: str, caller: str) -> View:
        """Return an analysis as it stands now; raises AnalysisNotFound."""
        # What is live is asked before the record is read: by then all of it is kept.
        lives = self._lives((name,))
        return view_of(await own_record(self._log, name, caller), lives)

    async def list(
        self, caller: str, states: Sequence[State], *, before_number: int = 0, limit: int = 50
    ) -> Sequence[View]:
        """Return the caller's analyses, newest first, or those that are older than the record of that number."""
        lives = self._lives(self._live)
        records = await self._log.list(caller, states, before_number=before_number, limit=limit)
        return [view_of(record, lives) for record in records]

    async def cancel(self, name: str, caller: str) -> View:
        """End an analysis that is no longer wanted and return it; one that has ended is left alone.

        One that the ending server has put away is ended by the next start. Raises LogUnavailable where the end cannot
        be kept within CANCEL_PATIENCE_S; the engine stops working on it all the same.
        """
        analysis = self._live.get(name)
        # What is live is stopped whether or not the log can be read.
        if analysis is not None and analysis.caller == caller and not analysis.ended:
            analysis.cancel()
            with known(name):
                await self._kept(name, analysis.last_sequence)
        elif (await own_record(self._log, name, caller)).state is State.ACTIVE:
            with known(name):
                await self._log.cancel(name)
        return await self.get(name, caller)

    async def delete(self, name: str, caller: str) -> None:
        """Delete an ended analysis; raises AnalysisNotFound, or AnalysisActive."""
        record = await own_record(self._log, name, caller)
        if name in self._live or record.state is State.ACTIVE:
            raise errors.AnalysisActive(f"{name} is active; cancel it first", field="name")
        with known(name):
            await self._log.delete(name)

    def let_go(self, name: str) -> None:
        """Cancel an analysis whose call has gone, after its grace, unless somebody watches it then."""
        analysis = self._live.get(name)
        grace_s = analysis.spec.disconnect_grace_s if analysis else None
        if grace_s == 0:
            self._cancel_if_unwatched(name)
        elif grace_s is not None:
            asyncio.get_running_loop().call_later(grace_s, self._cancel_if_unwatched, name)

    # What the operator asks for.

    async def recover(self) -> None:
        """Take up the active analyses that an earlier life of the server left in the log."""
        for record in await self._log.claim(self._owner, lease_s=LEASE_S):
            try:
                await self._recover(record)
            except Exception:
                _log.exception("an analysis could not be taken up", analysis=record.name)
                self._give_up(record.name)
        if self._live:
            _log.info("continuing", analyses=len(self._live))

    async def hold(self) -> None:
        """Renew the leases of what is active, and cancel what others have asked to cancel."""
        for name in await self._log.heartbeat(self._owner, lease_s=LEASE_S):
            analysis = self._live.get(name)
            if analysis is not None:
                analysis.cancel()

    async def drain(self, grace_s: float) -> None:
        """Refuse what is new, let the rest end for `grace_s` seconds, then leave what is left to the next start."""
        self._admission.closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        for analysis in self._live.values():
            analysis.suspend()
            if analysis.preparation is not None:
                analysis.preparation.cancel()
        self._watches.close()

    # What the log and the engine tell.

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

    # The rest is how.

    async def _create(
        self, request: AnalysisRequest, deadline_in_s: float | None, disconnect_grace_s: float | None
    ) -> str:
        validate(request, self._limits.request)
        # Megabytes of images take longer to hash than the loop may stand still.
        digest = await asyncio.to_thread(digest_of, request, request.images) if request.request_id else b""
        if request.request_id and (known := await self._log.find(request.caller, request.request_id)):
            return _same(known, digest)
        size = sum(map(len, request.images))
        self.check_room(size, request.caller)
        self._admission.count_request(request.caller)
        limit_s = self._admission.limit_s(deadline_in_s, request.time_limit_s)
        now_s = time.time()
        spec = Spec(
            request=replace(request, images=()),
            resolved=resolve(request, self._defaults, self._advisors),
            image_count=len(request.images),
            image_bytes=size,
            deadline_time_s=None if limit_s is None else now_s + limit_s,
            disconnect_grace_s=disconnect_grace_s,
        )
        record = Record(
            name=f"analyses/{uuid.uuid4().hex}",
            caller=request.caller,
            request_id=request.request_id,
            digest=digest,
            create_time_s=now_s,
            spec=encode_spec(spec),
        )
        try:
            with self._admission.entering(request.caller, size):
                await self._log.create(record, request.images, owner=self._owner, lease_s=LEASE_S)
        except RequestIdTaken as taken:
            return _same(taken.record, digest)
        if self._watches.closed:
            return record.name  # The next start begins it.
        analysis = self._enliven(self._analysis(record, spec))
        position = self._scheduler.enter(analysis)
        log_acceptance(record.name, request, position)
        self._observer.accepted()
        analysis.accept(self._accepted(spec, position))
        self._scheduler.pump()
        return record.name

    async def _recover(self, record: Record) -> None:
        spec = decode_spec(record.spec)
        events: list[Event] = []
        while page := await self._log.read(record.name, len(events)):
            events += page
        analysis = self._analysis(record, spec)
        if events:
            analysis.restore(events)
        self._enliven(analysis)
        if events:
            self._scheduler.enter(analysis)
        else:
            analysis.accept(self._accepted(spec, self._scheduler.enter(analysis)))
        self.let_go(record.name)

    def _give_up(self, name: str) -> None:
        """End an analysis that cannot be taken up, so that nobody waits for it for ever."""
        if self._log.available:  # If not, it may be the log's fault, and the next start tries again.
            error = errors.InternalError("the analysis could not be continued; see the server's log")
            with contextlib.suppress(KeyError, ValueError):
                self._log.append(name, Failed(error=error))
                self._observer.ended(Failed(error=error))

    def _analysis(self, record: Record, spec: Spec) -> Analysis:
        return Analysis(
            record.name, spec, caller=record.caller, log=self._log, on_end=self._ended, observer=self._observer
        )

    def _enliven(self, analysis: Analysis) -> Analysis:
        self._live[analysis.name] = analysis
        analysis.bytes_held = analysis.spec.image_bytes
        self._admission.hold(analysis.caller, analysis.bytes_held)
        self._idle.clear()
        return analysis

    def _accepted(self, spec: Spec, position: int) -> Accepted:
        model, resolved = self._engine.status.model, spec.resolved
        deadline_s = spec.deadline_time_s
        return Accepted(
            model=resolved.model,
            advisor=resolved.advisor,
            sampling=resolved.sampling,
            context_tokens=model.context_tokens if model else 0,
            queue_position=position,
            deadline_time=None if deadline_s is None else datetime.fromtimestamp(deadline_s, UTC),
        )

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

    def _ended(self, analysis: Analysis, terminal: Terminal) -> None:
        """Let go of everything that an ended analysis held."""
        del self._live[analysis.name]
        self._release(analysis)
        if analysis.preparation is not None:
            analysis.preparation.cancel()
        log_end(analysis.name, terminal)
        self._observer.ended(terminal)
        self._scheduler.leave(analysis)
        if not self._live:
            self._idle.set()

    async def _kept(self, name: str, sequence: int) -> None:
        """Wait until an event is kept, but not for ever."""
        try:
            async with asyncio.timeout(CANCEL_PATIENCE_S):
                await self._log.wait(name, sequence - 1)
        except TimeoutError as error:
            message = "the analysis was stopped, but its end cannot be kept at present"
            raise errors.LogUnavailable(message, retry_after_s=CANCEL_PATIENCE_S) from error

    def _release(self, analysis: Analysis) -> None:
        """Count the analysis's images no longer: it has its pictures, or has ended."""
        self._admission.hold(analysis.caller, -analysis.bytes_held)
        analysis.bytes_held = 0

    def _lives(self, names: Iterable[str]) -> dict[str, tuple[str, Progress]]:
        """Return the text and the progress of those that are live."""
        found = {name: self._live.get(name) for name in names}
        return {name: (analysis.text, analysis.progress()) for name, analysis in found.items() if analysis}

    def _cancel_if_unwatched(self, name: str) -> None:
        analysis = self._live.get(name)
        if analysis is not None and name not in self._watches:
            analysis.cancel()

    def _let_go_of_result(self, work: "asyncio.Task[str]") -> None:
        if not work.cancelled() and work.exception() is None:
            self.let_go(work.result())


def _blamed(in_hand: Sequence[Analysis]) -> Sequence[Analysis]:
    """Return those that the engine may have crashed over: what it had begun with, else what comes first."""
    return [analysis for analysis in in_hand if analysis.begun] or in_hand[:1]


def _same(record: Record, digest: bytes) -> str:
    """Return the record's name; raises RequestIdReused if it is of another request."""
    if record.digest != digest:
        raise errors.RequestIdReused("the request_id stands for another request already", field="request_id")
    return record.name


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
