"""The log in memory: it lives as long as the server process."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mondrian_server.events import Event, Payload


@dataclass(slots=True)
class _Entry:
    """One analysis: its events, and the signal that the next one will set."""

    events: list[Event] = field(default_factory=list[Event])
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryLog:
    """An `EventLog` that keeps everything in this process. For use on one event loop."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        """Return the number of analyses with a log."""
        return len(self._entries)

    def create(self, analysis: str) -> None:
        """Begin the log of a new analysis."""
        if analysis in self._entries:
            raise ValueError(f"{analysis} has a log already")
        self._entries[analysis] = _Entry()

    def append(self, analysis: str, payload: Payload) -> Event:
        """Add an event with the next sequence and wake the watchers."""
        entry = self._entries[analysis]
        if entry.events and entry.events[-1].is_terminal:
            raise ValueError(f"{analysis} has ended")
        event = Event(sequence=len(entry.events) + 1, analysis=analysis, create_time=datetime.now(UTC), payload=payload)
        entry.events.append(event)
        _wake(entry)
        return event

    def read(self, analysis: str, after_sequence: int) -> Sequence[Event]:
        """Return the events after a sequence, oldest first."""
        return self._entries[analysis].events[after_sequence:]

    async def wait(self, analysis: str, after_sequence: int) -> None:
        """Return when there is an event after that sequence."""
        while len((entry := self._entries[analysis]).events) <= after_sequence:
            await entry.changed.wait()

    def delete(self, analysis: str) -> None:
        """Forget an analysis and wake its watchers."""
        entry = self._entries.pop(analysis, None)
        if entry is not None:
            _wake(entry)


def _wake(entry: _Entry) -> None:
    """Wake everybody who waits now; whoever comes later waits for the next event."""
    entry.changed.set()
    entry.changed = asyncio.Event()
