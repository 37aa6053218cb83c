"""Admission: how much may wait, and who is told to come back later."""

import contextlib
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from mondrian_server import errors
from mondrian_server.analyses.validation import RequestLimits
from mondrian_server.callers import Allowances
from mondrian_server.engine.interface import EngineState, EngineStatus

SHUTDOWN_RETRY_S = 5.0
NO_LIMIT_S = 1e8
"""A limit of three years and more is none: it is beyond what clocks and timers can hold."""
HOPELESS_FAILURES = 3
"""After so many failed starts of the engine in a row, new analyses are refused instead of kept waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How much may wait, and what one request may hold.

    deadline_margin_s: how long before a caller may give up the last events are written, so that they arrive in time.
    """

    max_waiting: int = 256
    max_waiting_bytes: int = 1 << 30
    deadline_margin_s: float = 0.25
    request: RequestLimits = field(default_factory=RequestLimits)


class Admission:
    """The bounds on what waits, and what counts towards them, in all and for each caller.

    Where there may be several callers, each may take as much of the room as is left free: one alone half of it, two a
    third each. So nobody fills the room, and whoever has nothing waiting finds a place.
    """

    def __init__(self, limits: AdmissionLimits, allowances: Allowances) -> None:
        """Begin with nothing held."""
        self._limits = limits
        self._allowances = allowances
        self._bytes: Counter[str] = Counter()
        self._entering: Counter[str] = Counter()
        self.closed = False
        """Whether the server is ending."""

    @property
    def bytes_held(self) -> int:
        """Bytes of the image files of requests that are being written to the log, and of analyses not yet started."""
        return self._bytes.total()

    def check(
        self, caller: str, new_bytes: int, *, waiting: Mapping[str, int], status: EngineStatus, log_available: bool
    ) -> None:
        """Raise the error that tells why a request with `new_bytes` of images must be refused now, if it must.

        `waiting` has the numbers of analyses that wait by caller.
        """
        if self.closed:
            raise errors.ShuttingDown("the server is ending", retry_after_s=SHUTDOWN_RETRY_S)
        if not log_available:
            raise errors.LogUnavailable("events cannot be kept at present", retry_after_s=SHUTDOWN_RETRY_S)
        if status.state is not EngineState.READY and status.failures >= HOPELESS_FAILURES:
            raise errors.EngineUnavailable(
                "the engine cannot be started at present", retry_after_s=status.retry_after_s
            )
        self._allowances.check_request(caller)
        counts = Counter(waiting) + self._entering
        retry_after_s = float(min(30, 1 + counts.total() // 16))
        self._check_places(caller, counts, retry_after_s)
        if new_bytes:
            self._check_bytes(caller, new_bytes, retry_after_s)

    def count_request(self, caller: str) -> None:
        """Count a request that is taken on; raises TooManyRequests."""
        self._allowances.count_request(caller)

    @contextlib.contextmanager
    def entering(self, caller: str, size: int) -> Generator[None]:
        """Count a request with so many bytes while it is written to the log; it waits in a moment."""
        self._entering[caller] += 1
        self.hold(caller, size)
        try:
            yield
        finally:
            self._entering[caller] -= 1
            if not self._entering[caller]:
                del self._entering[caller]
            self.hold(caller, -size)

    def hold(self, caller: str, size: int) -> None:
        """Count bytes of images that a caller has waiting, or, below 0, has no more."""
        self._bytes[caller] += size
        if not self._bytes[caller]:
            del self._bytes[caller]

    def _check_places(self, caller: str, counts: Counter[str], retry_after_s: float) -> None:
        total, own = counts.total(), counts[caller]
        free = self._limits.max_waiting - total
        if free <= 0:
            raise errors.TooManyAnalyses(f"{total} analyses wait already", retry_after_s=retry_after_s)
        most = self._most(free, self._allowances.of(caller).max_waiting_analyses)
        if most is not None and own >= most:
            raise errors.TooManyAnalyses(
                f"{own} of your analyses wait already, and no more than {most} may", retry_after_s=retry_after_s
            )

    def _check_bytes(self, caller: str, new_bytes: int, retry_after_s: float) -> None:
        free = self._limits.max_waiting_bytes - self.bytes_held
        if new_bytes > free:
            raise errors.TooManyBytes(
                "the images of waiting analyses fill the room set aside for them", retry_after_s=retry_after_s
            )
        most = self._most(free, self._allowances.of(caller).max_waiting_bytes)
        if most is not None and self._bytes[caller] + new_bytes > most:
            raise errors.TooManyBytes(
                f"the images of your waiting analyses may have no more than {most:,} bytes",
                retry_after_s=retry_after_s,
            )

    def _most(self, free: int, own_limit: int | None) -> int | None:
        """Return how much of the room a caller may have, None: all of it."""
        return min((most for most in (own_limit, free if self._allowances.shared else None) if most), default=None)

    def limit_s(self, deadline_in_s: float | None, time_limit_s: float | None) -> float | None:
        """Return the seconds that an analysis has: to its time limit, or to a margin before its caller may give up."""
        if deadline_in_s is not None:
            deadline_in_s = max(0.0, deadline_in_s - min(self._limits.deadline_margin_s, deadline_in_s / 4))
        given = (value for value in (deadline_in_s, time_limit_s) if value is not None)
        return min((value for value in given if value < NO_LIMIT_S), default=None)
