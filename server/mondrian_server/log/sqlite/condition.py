"""The condition of the file: what is wrong with it, and when to try again."""

import time
from pathlib import Path

import structlog

from mondrian_server.errors import LogUnavailable
from mondrian_server.log.sqlite.faults import Fault, fault_of, words_for
from mondrian_server.log.sqlite.options import SqliteOptions

LOST_RETRY_S = 5.0
"""When to come back where somebody must act first."""

_log = structlog.stdlib.get_logger(__name__)


class Condition:
    """What the writer knows about the file."""

    def __init__(self, path: Path, options: SqliteOptions) -> None:
        """Begin with nothing wrong."""
        self._path = path
        self._options = options
        self._retry_s = options.retry_s
        self._retry_at = 0.0
        self.fault: Fault | None = None
        self.problem = ""

    def worsen(self, error: Exception) -> bool:
        """Take note of a failure and put off the next attempt; return whether it is news."""
        fault = fault_of(error)
        if fault is None:
            _log.error("a defect in the log", exc_info=error)
            fault = Fault.LASTING
        is_news = self.fault is None or (fault is Fault.LASTING and self.fault is Fault.PASSING)
        if is_news:
            self.fault = fault
            self.problem = f"{self._path} {words_for(error)}"
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(self._options.retry_max_s, 2 * self._retry_s)
        return is_news

    def heal(self) -> None:
        """Take note that everything works again."""
        self.fault = None
        self.problem = ""
        self._retry_s = self._options.retry_s

    def retry_soon(self) -> None:
        """Try again at the next occasion."""
        self._retry_at = 0.0

    @property
    def retry_in_s(self) -> float:
        """Seconds to the next attempt, 0 if it is time."""
        return max(0.0, self._retry_at - time.monotonic())

    def unavailable(self) -> LogUnavailable:
        """Return what callers are told. The problem itself names files: it is for the operator."""
        if self.fault is Fault.LASTING:
            return lost()
        return LogUnavailable("events cannot be kept at present", retry_after_s=self._options.retry_max_s)


def lost() -> LogUnavailable:
    """Return what callers are told of a fault that lasts until the server is started again."""
    return LogUnavailable("events cannot be kept until the server is started again", retry_after_s=LOST_RETRY_S)
