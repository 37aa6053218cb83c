"""The analyses service: what callers, and the operator, can do with analyses."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import NoReturn

import structlog

from mondrian_server import errors
from mondrian_server.analyses.admission import Admission, AdmissionLimits
from mondrian_server.analyses.live import LiveAnalyses
from mondrian_server.analyses.observing import UNOBSERVED, Observer
from mondrian_server.analyses.preparation import Decoder, Preparation
from mondrian_server.analyses.recovery import Recovery
from mondrian_server.analyses.reporting import log_acceptance
from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.analyses.resolution import Catalogue, Defaults, resolve
from mondrian_server.analyses.scheduler import Scheduler
from mondrian_server.analyses.spec import Spec, digest_of, encode_spec
from mondrian_server.analyses.validation import validate
from mondrian_server.analyses.view import View, view_of
from mondrian_server.analyses.watching import Watches, known, own_record
from mondrian_server.callers import Allowances
from mondrian_server.engine.interface import Engine
from mondrian_server.events import Event
from mondrian_server.log.interface import EventLog, Record, RequestIdTaken, State

_log = structlog.stdlib.get_logger(__name__)

CANCEL_PATIENCE_S = 5.0
"""How long a cancel waits for the log to keep the end."""

LEASE_S = 30.0
"""How long a server holds its analyses without a heartbeat. A log of one server takes no notice of it."""


class AnalysesService:
    """Every analysis, active or ended. For use on one event loop."""

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
        self._live = LiveAnalyses(
            log=log, engine=engine, scheduler=scheduler, admission=self._admission, observer=observer
        )
        self._watches = Watches(log, self._live)
        scheduler.prepare_by(Preparation(log, decoder, scheduler, release=self._live.release).begin)

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
            deadline_in_s: seconds from now for which the caller waits in any case; None: for ever.
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
        lives = self._live.states((name,))
        return view_of(await own_record(self._log, name, caller), lives)

    async def list(
        self, caller: str, states: Sequence[State], *, before_number: int = 0, limit: int = 50
    ) -> Sequence[View]:
        """Return the caller's analyses, newest first, or those that are older than the record of that number."""
        lives = self._live.states()
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
        recovery = Recovery(self._log, self._live, self._observer)
        for record in await self._log.claim(self._owner, lease_s=LEASE_S):
            await recovery.take_up(record)
            self.let_go(record.name)
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
                await self._live.idle.wait()
        for analysis in self._live:
            analysis.suspend()
            if analysis.preparation is not None:
                analysis.preparation.cancel()
        self._watches.close()

    # The rest is how.

    async def _create(
        self, request: AnalysisRequest, deadline_in_s: float | None, disconnect_grace_s: float | None
    ) -> str:
        called_at_s = time.monotonic()
        validate(request, self._limits.request)
        # Megabytes of images take longer to hash than the loop may stand still.
        digest = await asyncio.to_thread(digest_of, request, request.images) if request.request_id else b""
        if request.request_id and (known := await self._log.find(request.caller, request.request_id)):
            return _same(known, digest)
        size = sum(map(len, request.images))
        self.check_room(size, request.caller)
        self._admission.count_request(request.caller)
        if deadline_in_s is not None:
            deadline_in_s -= time.monotonic() - called_at_s
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
        log_acceptance(record.name, request, self._live.begin(record, spec))
        self._observer.accepted()
        self._scheduler.pump()
        return record.name

    async def _kept(self, name: str, sequence: int) -> None:
        """Wait until an event is kept, but not for ever."""
        try:
            async with asyncio.timeout(CANCEL_PATIENCE_S):
                await self._log.wait(name, sequence - 1)
        except TimeoutError as error:
            message = "the analysis was stopped, but its end cannot be kept at present"
            raise errors.LogUnavailable(message, retry_after_s=CANCEL_PATIENCE_S) from error

    def _cancel_if_unwatched(self, name: str) -> None:
        analysis = self._live.get(name)
        if analysis is not None and name not in self._watches:
            analysis.cancel()

    def _let_go_of_result(self, work: "asyncio.Task[str]") -> None:
        if not work.cancelled() and work.exception() is None:
            self.let_go(work.result())


def _same(record: Record, digest: bytes) -> str:
    """Return the record's name; raises RequestIdReused if it is of another request."""
    if record.digest != digest:
        raise errors.RequestIdReused("the request_id stands for another request already", field="request_id")
    return record.name
