"""Resuming: how long to wait before an interrupted stream is taken up again, and when to give up."""

import random
import time
from collections.abc import Callable
from typing import TypeAlias

import grpc

from mondrian._errors import AnalysisCancelled, DeadlineExceeded, MondrianError, Unavailable

DEFAULT_LIMIT_S = 120.0
"""How long to try by default."""

OnInterruption: TypeAlias = Callable[[MondrianError, float], None]
"""What is told of an interruption: the error, and the seconds until the next try. It may raise to give up."""

_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 5.0

# What gRPC's core says where no connection could be made, as opposed to one that was lost.
_NO_CONNECTION = ("failed to connect to all addresses", "DNS resolution failed")


_RESET = "RST_STREAM"
"""What gRPC's core says where a proxy or a dying server ended the call's stream, whatever the code."""


def _is_interruption(error: MondrianError) -> bool:
    """Tell whether the call was cut off, as far as its status says. `failed` and `cancelled` are events, not this.

    A server that is stopped may end its calls with a bare CANCELLED.
    """
    return isinstance(error, Unavailable | AnalysisCancelled) or _RESET in error.message


class Contact:
    """Whether a client has reached its server at all; all its calls share it."""

    def __init__(self) -> None:
        self.made = False

    def note(self, error: grpc.RpcError) -> None:
        """Take note of how a call ended: every other end than a connection that was never made shows a server."""
        self.made = self.made or not (error.details() or "").startswith(_NO_CONNECTION)


class Resumption:
    """Decides for one stream, or one call that may be repeated, whether and when to try again.

    The clock of `timeout_s` starts when `time_left_s` is first asked. `limit_s` counts from the first interruption
    since the last progress. A server that the client has never reached is not waited for: most often the address is
    wrong.
    """

    def __init__(self, contact: Contact, *, limit_s: float | None, timeout_s: float | None):
        self._contact = contact
        self._limit_s = limit_s or 0.0
        self._timeout_s = timeout_s
        self._deadline_s: float | None = None
        self._interrupted_s: float | None = None
        self._interruption: MondrianError | None = None
        self._attempts = 0

    def time_left_s(self) -> float | None:
        """Return the seconds to the caller's deadline, never below 0; None: there is none."""
        if self._timeout_s is None:
            return None
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + self._timeout_s
        return max(0.0, self._deadline_s - time.monotonic())

    def progressed(self) -> None:
        """Take note that the server has answered."""
        self._contact.made = True
        self._interrupted_s = None
        self._interruption = None
        self._attempts = 0

    def delay_s(self, error: MondrianError) -> float:
        """Return the seconds after which to try again; raises `error` where it is the end.

        A deadline that ended a try is raised from what had gone wrong before it, which is what to mend.
        """
        if not _is_interruption(error) or not self._contact.made:
            raise error from (self._interruption if isinstance(error, DeadlineExceeded) else None)
        now_s = time.monotonic()
        if self._interrupted_s is None:
            self._interrupted_s = now_s
        self._interruption = error
        delay_s = max(self._back_off_s(), error.retry_after_s or 0.0)
        time_left_s = self.time_left_s()
        in_time = time_left_s is None or delay_s < time_left_s
        if not in_time or now_s + delay_s - self._interrupted_s >= self._limit_s:
            raise error from None
        return delay_s

    def _back_off_s(self) -> float:
        longest_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(self._attempts, 16))
        self._attempts += 1
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads callers; nothing secret
