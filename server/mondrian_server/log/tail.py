"""The newest events of an analysis, in memory, and those who wait for the next one."""

import asyncio
import contextlib
from collections.abc import Generator

from mondrian_server.events import Event


class Tail:
    """What one analysis has numbered and kept, with its newest events, so that watchers touch no disk.

    number: the store's own number of the analysis.
    numbered, kept: the last sequence that was given, and the last that a crash cannot take back.
    ended: whether the terminal event has been numbered.
    closing: whether it is being deleted; it takes no more events.
    """

    __slots__ = ("_events", "_limit", "_page", "_page_key", "closing", "ended", "kept", "number", "numbered")

    def __init__(self, number: int, *, kept: int = 0, limit: int) -> None:
        """Begin after the sequence `kept`; hold at least the newest `limit` events, at most twice as many."""
        self.number = number
        self.numbered = kept
        self.kept = kept
        self.ended = False
        self.closing = False
        self._limit = limit
        self._events: list[Event] = []
        self._page_key: tuple[int, int] | None = None
        self._page: tuple[Event, ...] = ()

    def keep(self, event: Event) -> None:
        """Take in an event that has been kept; they come in order."""
        self._events.append(event)
        self.kept = event.sequence
        self._page_key = None
        if len(self._events) > 2 * self._limit:
            self.shrink(self._limit)

    def shrink(self, count: int) -> None:
        """Let go of all but the newest events."""
        del self._events[:-count]

    def covers(self, after_sequence: int) -> bool:
        """Whether all kept events after that sequence are here."""
        return after_sequence >= self.kept - len(self._events)

    def page(self, after_sequence: int, limit: int) -> tuple[Event, ...]:
        """Return events after a sequence; all who ask for the same get the same tuple."""
        key = (after_sequence, limit)
        if self._page_key != key:
            start = max(0, after_sequence - (self.kept - len(self._events)))
            self._page = tuple(self._events[start : start + limit])
            self._page_key = key
        return self._page


class Watchers:
    """Those who wait, by the analysis that they wait for. For use on one event loop."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._waiting: dict[str, set[asyncio.Future[bool]]] = {}

    def __contains__(self, name: str) -> bool:
        """Whether anybody waits for the analysis."""
        return name in self._waiting

    @contextlib.contextmanager
    def join(self, name: str) -> Generator["asyncio.Future[bool]"]:
        """Wait from here on; the future says at the next wake-up whether the analysis is still there."""
        woken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, set()).add(woken)
        try:
            yield woken
        finally:
            group = self._waiting.get(name)
            if group is not None:
                group.discard(woken)
                if not group:
                    del self._waiting[name]

    def wake(self, name: str, *, there: bool = True) -> None:
        """Wake everybody who waits for an analysis."""
        for woken in self._waiting.pop(name, ()):
            if not woken.done():
                woken.set_result(there)

    def end(self, error: Exception) -> None:
        """Raise in everybody who waits: there will be nothing more."""
        for group in self._waiting.values():
            for woken in group:
                if not woken.done():
                    woken.set_exception(error)
        self._waiting.clear()
