"""The log's interface: what any store of analyses and their events must do."""

import enum
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from mondrian_server.events import Event, Payload, Terminal
from mondrian_server.pictures import Picture


class State(enum.IntEnum):
    """What became of an analysis."""

    ACTIVE = 1
    COMPLETED = 2
    FAILED = 3
    CANCELLED = 4


class Record(Struct, frozen=True, kw_only=True):
    """What is kept of an analysis beside its events.

    caller: whom it belongs to; to all others it does not exist.
    request_id: the caller's own name for the request; empty: none.
    digest: a digest of the request's payload, images included; the same `request_id` with another one is refused.
    create_time_s, end_time_s: seconds since the epoch; `end_time_s` is None while it is active.
    spec: what to do, in the words of whoever created it; the log does not look inside.
    terminal: the terminal event's payload, None while it is active.
    text: the final text of an ended analysis, or the partial one where it failed or was cancelled.
    expired: its events, its images, its `spec` and its text have been deleted because of their age or size.
    number: of arrival, given by the store: a later record has a larger one. A place in a list that outlasts the record.
    """

    name: str
    caller: str
    request_id: str
    digest: bytes
    create_time_s: float
    spec: bytes
    state: State = State.ACTIVE
    end_time_s: float | None = None
    terminal: Terminal | None = None
    text: str = ""
    expired: bool = False
    number: int = 0


class Images(Struct, frozen=True, kw_only=True):
    """The images of an analysis: the files as they came until they are normalised, the pictures from then on."""

    files: tuple[bytes, ...] = ()
    pictures: tuple[Picture, ...] = ()


class Size(Struct, frozen=True, kw_only=True):
    """How large the log is.

    file_bytes: of the store as a whole.
    kept_bytes: what ended analyses occupy of it, which is what `EventLog.expire` bounds.
    analyses: records, expired ones included.
    """

    file_bytes: int = 0
    kept_bytes: int = 0
    analyses: int = 0


class RequestIdTaken(Exception):
    """The caller has used the request id before; `record` is what it stands for."""

    def __init__(self, record: Record) -> None:
        """Keep the record."""
        super().__init__(record.name)
        self.record = record


class EventLog(Protocol):
    """Numbered events of many analyses, and what is kept beside them.

    `append` never waits: it numbers the event and hands it to the store. Everything else knows only what the store has
    kept, so that nobody sees an event that a crash could take back. Names that the store does not know raise KeyError.
    Every method but `append` and `available` may raise `errors.LogUnavailable`.
    """

    @property
    def available(self) -> bool:
        """Whether the store can keep events now. Watched by health."""
        ...

    async def create(self, record: Record, files: Sequence[bytes], *, owner: str, lease_s: float) -> None:
        """Begin an analysis with its image files, held by `owner`; raises RequestIdTaken. Returns when it is kept.

        Of callers that create with one `request_id` at once, exactly one succeeds.
        Where the caller gives up in between, the analysis exists or not; if it does, nobody holds it.
        """
        ...

    def append(self, name: str, payload: Payload) -> Event:
        """Add an event with the next sequence and return it; raises ValueError after the terminal event.

        A terminal event also ends the record (state, end time, terminal, text) and deletes the images, in the same
        transaction, unless images are to be kept for the retention time.
        """
        ...

    async def read(self, name: str, after_sequence: int, limit: int = 1000) -> Sequence[Event]:
        """Return kept events after a sequence (0: from the first), oldest first; raises `errors.EventsExpired`."""
        ...

    async def wait(self, name: str, after_sequence: int) -> None:
        """Return when there is a kept event after that sequence, or the analysis was deleted, or its events expired.

        Behind the terminal event that is all there is to wait for. Raises `errors.LogUnavailable` when the log closes,
        or can keep nothing more for as long as it is open. A fault that may pass is waited for.
        """
        ...

    async def put_pictures(self, name: str, pictures: Sequence[Picture]) -> None:
        """Keep normalised pictures in place of the image files."""
        ...

    async def images(self, name: str) -> Images:
        """Return the images as they are kept."""
        ...

    async def get(self, name: str) -> Record:
        """Return a record."""
        ...

    async def find(self, caller: str, request_id: str) -> Record | None:
        """Return the caller's record of that request id."""
        ...

    async def list(
        self, caller: str, states: Sequence[State], *, before_number: int = 0, limit: int = 50
    ) -> Sequence[Record]:
        """Return a caller's records, newest first.

        Args:
            caller: whose.
            states: in which states; empty: any.
            before_number: the number after which the page begins, which may be that of a deleted one; 0: the newest.
            limit: the most records.
        """
        ...

    async def cancel(self, name: str) -> None:
        """Ask whoever holds an active analysis to cancel it; `heartbeat` tells them."""
        ...

    async def delete(self, name: str) -> None:
        """Delete an analysis with everything that is kept of it, and wake its watchers."""
        ...

    async def claim(self, owner: str, *, lease_s: float) -> Sequence[Record]:
        """Take every active analysis that nobody holds, oldest first, for `lease_s` seconds.

        Nobody holds one that was released, or whose lease has run out. In a store for one server, all leases of a
        former process are void.
        """
        ...

    async def heartbeat(self, owner: str, *, lease_s: float) -> Sequence[str]:
        """Hold what the owner holds for another `lease_s` seconds; return the names that are to be cancelled."""
        ...

    async def release(self, owner: str, name: str) -> None:
        """Let go of an analysis, so that it can be claimed again."""
        ...

    async def expire(self, *, ended_before_s: float, keep_bytes: int) -> Sequence[str]:
        """Delete the events of ended analyses that are too old, and then of the oldest beyond `keep_bytes` in all.

        What is left of them is the record without spec and text, `expired` set; records that were expired before and
        ended before `ended_before_s` twice over are deleted altogether. Works in small transactions, so that appends
        do not wait. Returns the names of the newly expired.
        """
        ...

    async def size(self) -> Size:
        """Return how large the log is."""
        ...

    async def close(self) -> None:
        """Keep what was appended, and close."""
        ...
