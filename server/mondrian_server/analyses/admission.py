"""Admission: how much may wait, and who is told to come back later."""

from dataclasses import dataclass, field

from mondrian_server import errors
from mondrian_server.analyses.validation import RequestLimits
from mondrian_server.engine.interface import EngineState, EngineStatus

SHUTDOWN_RETRY_S = 5.0
NO_LIMIT_S = 1e8
"""A limit of three years and more is none: it is beyond what clocks and timers can hold."""
HOPELESS_FAILURES = 3
"""After so many failed starts of the engine in a row, new analyses are refused instead of kept waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How much may wait, and what one request may hold.

    deadline_margin_s: how long before a call's deadline the last events are written, so that they arrive in time.
    """

    max_waiting: int = 256
    max_waiting_bytes: int = 1 << 30
    deadline_margin_s: float = 0.25
    request: RequestLimits = field(default_factory=RequestLimits)


class Admission:
    """The bounds on what waits, and what counts towards them."""

    def __init__(self, limits: AdmissionLimits) -> None:
        """Begin with nothing held."""
        self._limits = limits
        self.bytes_held = 0
        """Bytes of the image files of requests that are being written to the log, and of analyses not yet started."""
        self.entering = 0
        """Requests that are being written to the log, and will wait in a moment."""
        self.closed = False
        """Whether the server is ending."""

    def check(self, new_bytes: int, *, waiting: int, status: EngineStatus, log_available: bool) -> None:
        """Raise the error that tells why a request with `new_bytes` of images must be refused now, if it must."""
        waiting += self.entering
        retry_after_s = float(min(30, 1 + waiting // 16))
        if self.closed:
            raise errors.ShuttingDown("the server is ending", retry_after_s=SHUTDOWN_RETRY_S)
        if not log_available:
            raise errors.LogUnavailable("events cannot be kept at present", retry_after_s=SHUTDOWN_RETRY_S)
        if status.state is not EngineState.READY and status.failures >= HOPELESS_FAILURES:
            raise errors.EngineUnavailable(
                "the engine cannot be started at present", retry_after_s=status.retry_after_s
            )
        if waiting >= self._limits.max_waiting:
            raise errors.TooManyAnalyses(f"{waiting} analyses wait already", retry_after_s=retry_after_s)
        if new_bytes and self.bytes_held + new_bytes > self._limits.max_waiting_bytes:
            raise errors.TooManyBytes(
                "the images of waiting analyses fill the room set aside for them", retry_after_s=retry_after_s
            )

    def limit_s(self, deadline_in_s: float | None, time_limit_s: float | None) -> float | None:
        """Return the seconds that an analysis has: to its time limit, or to a margin before the call's deadline."""
        if deadline_in_s is not None:
            deadline_in_s = max(0.0, deadline_in_s - min(self._limits.deadline_margin_s, deadline_in_s / 4))
        given = (value for value in (deadline_in_s, time_limit_s) if value is not None)
        return min((value for value in given if value < NO_LIMIT_S), default=None)
