"""The log in SQLite as the loop sees it: numbering, tails in memory, and messages to the writer's thread."""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from mondrian_server.errors import LogUnavailable
from mondrian_server.events import Event, Payload
from mondrian_server.log.codec import encode_payload
from mondrian_server.log.interface import Images, Record, Size, State
from mondrian_server.log.leases import Leases
from mondrian_server.log.sqlite import events, expiry, images, records
from mondrian_server.log.sqlite.condition import lost
from mondrian_server.log.sqlite.events import Active, Append
from mondrian_server.log.sqlite.operation import Kind, Operation
from mondrian_server.log.sqlite.options import SqliteOptions
from mondrian_server.log.sqlite.writer import Writer
from mondrian_server.log.tail import Tail, Watchers
from mondrian_server.pictures import Picture

_log = structlog.stdlib.get_logger(__name__)

_ENDED_TAILS = 64
"""How many ended analyses keep their tails, for those who are about to read the end."""

_ENDED_EVENTS = 256

Result = TypeVar("Result")


class SqliteLog:
    """An `EventLog` in one SQLite file. For use on one event loop, by one server."""

    def __init__(
        self, path: Path, options: SqliteOptions | None = None, *, on_availability: Callable[[bool], None] | None = None
    ) -> None:
        """Prepare; `start` opens the file. `on_availability` is called on the loop at each change of `available`."""
        self._options = options or SqliteOptions()
        self._on_availability = on_availability
        self._writer = Writer(path, self._options, self)
        self._tails: dict[str, Tail] = {}
        self._ended: deque[str] = deque()
        self._watchers = Watchers()
        self._leases = Leases(asyncio.get_running_loop().time)
        self._problem = ""
        self._is_lost = False
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, options: SqliteOptions | None = None, *, on_availability: Callable[[bool], None] | None = None
    ) -> "SqliteLog":
        """Open the log's file, beginning it where there is none; raises StartupError. The caller closes it."""
        log = cls(path, options, on_availability=on_availability)
        await log._start()
        return log

    async def _start(self) -> None:
        try:
            await self._writer.start()
            await self._submit(Kind.READ, events.active, self._load)
        except BaseException:
            await self.close()
            raise

    @property
    def available(self) -> bool:
        """Whether the store can keep events now."""
        return not self._problem and not self._closed

    async def create(self, record: Record, files: Sequence[bytes], *, owner: str, lease_s: float) -> None:
        """Begin an analysis with its image files, held by `owner`; raises RequestIdTaken. Returns when it is kept."""

        def work(connection: sqlite3.Connection) -> int:
            number = records.insert(connection, record)
            images.put_files(connection, number, files)
            return number

        future = asyncio.get_running_loop().create_future()

        def then(number: int) -> int:
            self._tails[record.name] = Tail(number, limit=self._options.tail_events)
            if not future.cancelled():
                # Nobody works on what a cancelled call has begun: it is there to be claimed.
                self._leases.hold(record.name, owner, lease_s)
            return number

        await self._submit(Kind.WRITE, work, then, future)

    def append(self, name: str, payload: Payload) -> Event:
        """Add an event with the next sequence and return it; raises ValueError after the terminal event."""
        if self._closed:
            raise ValueError("the log is closed")
        tail = self._tails.get(name)
        if tail is None or tail.closing:
            raise KeyError(name)
        if tail.ended:
            raise ValueError(f"{name} has ended")
        encoded = encode_payload(payload)
        event = Event(sequence=tail.numbered + 1, analysis=name, create_time=datetime.now(UTC), payload=payload)
        tail.numbered += 1
        tail.ended = event.is_terminal
        self._writer.put(Append(tail.number, event, encoded))
        return event

    async def read(self, name: str, after_sequence: int, limit: int = 1000) -> Sequence[Event]:
        """Return kept events after a sequence (0: from the first), oldest first; raises EventsExpired."""
        tail = self._tails.get(name)
        if tail is not None and tail.covers(after_sequence):
            return tail.page(after_sequence, limit)
        return await self._submit(Kind.READ, lambda connection: events.read(connection, name, after_sequence, limit))

    async def wait(self, name: str, after_sequence: int) -> None:
        """Return when there is a kept event after that sequence, or the analysis was deleted."""
        there = True
        while there:
            # Joining before looking: nothing can be kept between the two unnoticed.
            with self._watchers.join(name) as woken:
                if await self._last_sequence(name) > after_sequence:
                    return
                if self._is_lost:
                    raise lost()
                there = await woken

    async def put_pictures(self, name: str, pictures: Sequence[Picture]) -> None:
        """Keep normalised pictures in place of the image files; of an analysis that has ended, nothing is kept."""

        def work(connection: sqlite3.Connection) -> None:
            number, state, _ = records.state_of(connection, name)
            if state is State.ACTIVE:
                images.put_pictures(connection, number, pictures)

        await self._submit(Kind.WRITE, work)

    async def images(self, name: str) -> Images:
        """Return the images as they are kept."""
        return await self._submit(
            Kind.READ, lambda connection: images.read(connection, records.number_of(connection, name))
        )

    async def get(self, name: str) -> Record:
        """Return a record."""
        return await self._submit(Kind.READ, lambda connection: records.get(connection, name))

    async def find(self, caller: str, request_id: str) -> Record | None:
        """Return the caller's record of that request id."""
        return await self._submit(Kind.READ, lambda connection: records.find(connection, caller, request_id))

    async def list(
        self, caller: str, states: Sequence[State], *, before_number: int = 0, limit: int = 50
    ) -> Sequence[Record]:
        """Return a caller's records, newest first."""
        return await self._submit(
            Kind.READ,
            lambda connection: records.newest(connection, caller, states, before_number=before_number, limit=limit),
        )

    async def cancel(self, name: str) -> None:
        """Ask whoever holds an active analysis to cancel it; `heartbeat` tells them."""

        def then(is_active: bool) -> bool:
            if is_active and name in self._tails:
                self._leases.wish_cancelled(name)
            return is_active

        await self._submit(Kind.WRITE, lambda connection: records.wish_cancelled(connection, name), then)

    async def delete(self, name: str) -> None:
        """Delete an analysis with everything that is kept of it, and wake its watchers."""
        tail = self._tails.get(name)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def reopen(done: "asyncio.Future[None]") -> None:
            if tail is not None and (done.cancelled() or done.exception() is not None):
                tail.closing = False

        if tail is not None:
            tail.closing = True
        future.add_done_callback(reopen)
        # A call that is cancelled here does not take the deletion back.
        await asyncio.shield(
            self._submit(
                Kind.DELETION, lambda connection: expiry.delete(connection, name), lambda _: self._gone(name), future
            )
        )

    async def claim(self, owner: str, *, lease_s: float) -> Sequence[Record]:
        """Take every active analysis that nobody holds, oldest first, for `lease_s` seconds."""
        future = asyncio.get_running_loop().create_future()

        def then(found: Sequence[Record]) -> Sequence[Record]:
            free = [record for record in found if not future.cancelled() and self._is_free(record.name)]
            for record in free:
                self._leases.hold(record.name, owner, lease_s)
            return free

        return await self._submit(Kind.READ, records.active, then, future)

    async def heartbeat(self, owner: str, *, lease_s: float) -> Sequence[str]:
        """Hold what the owner holds for another `lease_s` seconds; return the names that are to be cancelled."""
        return self._leases.renew(owner, lease_s)

    async def release(self, owner: str, name: str) -> None:
        """Let go of an analysis, so that it can be claimed again."""
        if name not in self._tails:
            await self.get(name)
        self._leases.release(name, owner)

    async def expire(self, *, ended_before_s: float, keep_bytes: int) -> Sequence[str]:
        """Delete the events of ended analyses that are too old, and then of the oldest beyond `keep_bytes` in all."""
        forget_before_s = 2 * ended_before_s - time.time()
        await self._in_steps(lambda connection: expiry.forget(connection, forget_before_s))
        return await self._in_steps(lambda connection: expiry.expire(connection, ended_before_s, keep_bytes))

    async def size(self) -> Size:
        """Return how large the log is."""
        return await self._submit(Kind.READ, records.size)

    async def close(self) -> None:
        """Keep what was appended, and close."""
        if self._closed:
            return
        self._closed = True
        lost = await self._writer.close()
        self._watchers.end(LogUnavailable("the log is closed"))
        if lost:
            _log.error("events could not be kept", events=lost, problem=self._problem)

    # What the writer's thread tells, on the loop.

    def kept(self, appended: Sequence[Event], operations: Sequence[Operation[Any]]) -> None:
        """Show what one transaction has kept, and wake whoever waits for it."""
        names: set[str] = set()
        for event in appended:
            tail = self._tails.get(event.analysis)
            if tail is not None:
                tail.keep(event)
                names.add(event.analysis)
                if event.is_terminal:
                    self._end(event.analysis)
        for name in names:
            self._watchers.wake(name)
        for operation in operations:
            operation.deliver()

    def availability_changed(self, problem: str, *, lasting: bool) -> None:
        """Take note of a problem, or of its end, and tell whoever asked to be told, and whoever waits in vain."""
        if problem:
            _log.error("log unavailable", problem=problem)
        else:
            _log.info("log available again")
        told = self.available
        self._problem = problem
        if lasting:
            self._is_lost = True
            self._watchers.end(lost())
        if self._on_availability is not None and self.available is not told:
            self._on_availability(self.available)

    def _load(self, found: Sequence[Active]) -> Sequence[Active]:
        """Hold what was active when the file was last closed."""
        for analysis in found:
            self._tails[analysis.name] = Tail(analysis.number, kept=analysis.kept, limit=self._options.tail_events)
            if analysis.is_cancelling:
                self._leases.wish_cancelled(analysis.name)
        return found

    def _end(self, name: str) -> None:
        """Let go of an ended analysis, but for its tail, which its watchers are about to read."""
        self._leases.drop(name)
        self._tails[name].shrink(_ENDED_EVENTS)
        self._ended.append(name)
        if len(self._ended) > _ENDED_TAILS:
            self._tails.pop(self._ended.popleft(), None)

    def _gone(self, name: str) -> None:
        """Let go of an analysis whose events were deleted."""
        self._leases.drop(name)
        self._tails.pop(name, None)
        self._watchers.wake(name, there=False)

    def _is_free(self, name: str) -> bool:
        tail = self._tails.get(name)
        return tail is not None and not tail.ended and not tail.closing and not self._leases.is_held(name)

    async def _last_sequence(self, name: str) -> int:
        tail = self._tails.get(name)
        if tail is not None:
            return tail.kept
        return await self._submit(Kind.READ, lambda connection: events.last_sequence(connection, name))

    async def _in_steps(self, work: Callable[[sqlite3.Connection], expiry.Step]) -> Sequence[str]:
        """Delete in small transactions until there is nothing more to delete; return the names."""
        names: list[str] = []

        def then(step: expiry.Step) -> expiry.Step:
            for name in step.names:
                self._gone(name)
            return step

        while True:
            step = await self._submit(Kind.DELETION, work, then)
            names.extend(step.names)
            if not step.more:
                return names

    async def _submit(
        self,
        kind: Kind,
        work: Callable[[sqlite3.Connection], Result],
        then: Callable[[Result], Result] | None = None,
        future: "asyncio.Future[Result] | None" = None,
    ) -> Result:
        """Have the writer's thread do something, and return its result when it is kept."""
        if self._closed:
            raise LogUnavailable("the log is closed")
        if future is None:
            future = asyncio.get_running_loop().create_future()
        self._writer.put(Operation(kind, work, future, then))
        return await future
