"""An operation: what the loop asks of the writer's thread, and the way of its result back."""

import asyncio
import enum
import sqlite3
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Kind(enum.Enum):
    """When an operation may run."""

    READ = 1
    """Changes nothing: also while the disk is full."""
    WRITE = 2
    """Together with the appends of the moment; not while the disk is full."""
    DELETION = 3
    """Apart from appends, which it must not hold up; also while the disk is full, because it can make room."""


class Operation(Generic[Result]):
    """Work for the connection; its future belongs to the loop."""

    def __init__(
        self,
        kind: Kind,
        work: Callable[[sqlite3.Connection], Result],
        future: "asyncio.Future[Result]",
        then: Callable[[Result], Result] | None,
    ) -> None:
        """Describe the work; `then` runs on the loop when it is kept, before anybody else sees the result."""
        self.kind = kind
        self._work = work
        self._future = future
        self._then = then
        self._outcome: tuple[Result] | None = None
        self._error: Exception | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not self._future.cancelled()

    def execute(self, connection: sqlite3.Connection) -> None:
        """Do the work, on the writer's thread; errors are the caller's to judge."""
        self._outcome = (self._work(connection),)
        self._error = None

    def fail(self, error: Exception) -> None:
        """Keep an error in place of the result."""
        self._error = error

    def deliver(self) -> None:
        """Hand over the result or the error, on the loop."""
        if self._error is not None:
            if not self._future.done():
                self._future.set_exception(self._error)
        elif self._outcome is not None:
            result = self._outcome[0]
            if self._then is not None:
                result = self._then(result)
            if not self._future.done():
                self._future.set_result(result)
