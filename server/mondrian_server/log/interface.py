"""The log's interface: what any store of events must do."""

from collections.abc import Sequence
from typing import Protocol

from mondrian_server.events import Event, Payload


class EventLog(Protocol):
    """Numbered events of many analyses.

    `append` never waits: it numbers the event and hands it to the store. `read` and `wait` know only events that the
    store has kept, so that nobody sees an event that a crash could take back.
    """

    def create(self, analysis: str) -> None:
        """Begin the log of a new analysis; raises ValueError where there is one already."""
        ...

    def append(self, analysis: str, payload: Payload) -> Event:
        """Add an event with the next sequence; raises ValueError after the terminal event."""
        ...

    def read(self, analysis: str, after_sequence: int) -> Sequence[Event]:
        """Return the kept events after a sequence (0: all), oldest first; raises KeyError without such a log."""
        ...

    async def wait(self, analysis: str, after_sequence: int) -> None:
        """Return when there is an event after that sequence; raises KeyError when the log is gone."""
        ...

    def delete(self, analysis: str) -> None:
        """Forget an analysis and wake its watchers. Unknown ones are ignored."""
        ...
