"""Watching: cursors into the log that follow an analysis to its end, and how they end with the server."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Container, Generator, Sequence

from mondrian_server import errors
from mondrian_server.analyses.admission import SHUTDOWN_RETRY_S
from mondrian_server.events import Event
from mondrian_server.log.interface import EventLog, Record, State


class Watches:
    """Everybody who watches an analysis. For use on one event loop."""

    def __init__(self, log: EventLog, live: Container[str]) -> None:
        """Begin with nobody; `live` has the names of the analyses that may still write."""
        self._log = log
        self._live = live
        self._watched: Counter[str] = Counter()
        self.count = 0
        """How many watch, all analyses together."""
        self._waiting: set[asyncio.Task[object]] = set()
        self.closed = False
        """Whether nothing more is written, because the server is ending."""

    def __contains__(self, name: object) -> bool:
        """Return whether somebody watches an analysis."""
        return name in self._watched

    async def follow(self, name: str, caller: str, after_sequence: int) -> AsyncGenerator[Sequence[Event]]:
        """Yield events as `AnalysesService.watch` does."""
        self._watched[name] += 1
        self.count += 1
        try:
            await own_record(self._log, name, caller)
            while True:
                closed = self.closed
                # Before reading: an end that the record shows is kept, and so is everything before it.
                ended = (closed or name not in self._live) and await self._has_ended(name, caller)
                with known(name):
                    events = await self._log.read(name, after_sequence)
                if events:
                    yield events
                    if events[-1].is_terminal:
                        return
                    after_sequence = events[-1].sequence
                elif ended:
                    return  # The caller has seen the terminal event already.
                elif closed:
                    raise errors.ShuttingDown("the server is ending", retry_after_s=SHUTDOWN_RETRY_S)
                else:
                    await self._wait(name, after_sequence)
        finally:
            self.count -= 1
            self._watched[name] -= 1
            if not self._watched[name]:
                del self._watched[name]

    def close(self) -> None:
        """Let everybody read what has been written, and then end with ShuttingDown."""
        self.closed = True
        for task in self._waiting:
            task.cancel()

    async def _has_ended(self, name: str, caller: str) -> bool:
        return (await own_record(self._log, name, caller)).state is not State.ACTIVE

    async def _wait(self, name: str, after_sequence: int) -> None:
        """Wait for the next event; returns early where the server is ending."""
        if self.closed:
            return
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            with known(name):
                await self._log.wait(name, after_sequence)
        except asyncio.CancelledError:
            if not self.closed:
                raise
            task.uncancel()  # It was `close` that woke this watcher.
        finally:
            self._waiting.discard(task)


async def own_record(log: EventLog, name: str, caller: str) -> Record:
    """Return a record that is the caller's; raises AnalysisNotFound."""
    with known(name):
        record = await log.get(name)
    if record.caller != caller:
        raise _not_found(name)
    return record


@contextlib.contextmanager
def known(name: str) -> Generator[None]:
    """Turn the log's KeyError into AnalysisNotFound."""
    try:
        yield
    except KeyError as error:
        raise _not_found(name) from error


def _not_found(name: str) -> errors.AnalysisNotFound:
    return errors.AnalysisNotFound(f"there is no analysis {name[:80]!r}", field="name")
