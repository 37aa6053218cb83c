"""The writer: one thread that owns the connection and turns what is queued into transactions."""

import asyncio
import contextlib
import itertools
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import structlog

from mondrian_server.errors import EventsExpired, LogUnavailable, StartupError
from mondrian_server.events import Event
from mondrian_server.log.codec import Damaged
from mondrian_server.log.interface import RequestIdTaken
from mondrian_server.log.sqlite import events
from mondrian_server.log.sqlite.database import Database, open_database
from mondrian_server.log.sqlite.events import Append
from mondrian_server.log.sqlite.faults import Fault, FileGone, fault_of, words_for
from mondrian_server.log.sqlite.operation import Kind, Operation

_log = structlog.stdlib.get_logger(__name__)

_GROUP_APPENDS = 2048
_GROUP_OPERATIONS = 256
_LOOK_S = 0.25
_VACUUM_PAGES = 500
_VACUUM_ABOVE_PAGES = 4096

_ANSWERS = (KeyError, ValueError, RequestIdTaken, EventsExpired)
"""Errors that answer an operation; it raises them before it has changed anything."""


class _Close:
    """The last message."""


_Message: TypeAlias = Append | Operation[Any] | _Close


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """How the log is kept.

    full_synchronous: flush at each commit, so that a power cut takes nothing back; else only a crash of the process
        takes nothing back.
    keep_images: keep the images of ended analyses until they expire.
    max_file_bytes: how large the file may grow; 0: as large as the disk.
    tail_events: how many of an analysis's newest events are held in memory at least.
    retry_s, retry_max_s: after which time a failed transaction is tried again, at first and at most.
    idle_s: after which time without work the file is looked at and gives back space.
    """

    full_synchronous: bool = False
    keep_images: bool = False
    max_file_bytes: int = 0
    tail_events: int = 1024
    retry_s: float = 0.1
    retry_max_s: float = 2.0
    idle_s: float = 1.0


class Listener(Protocol):
    """Whoever is told on the loop what the thread has done."""

    def kept(self, appended: Sequence[Event], operations: Sequence[Operation[Any]]) -> None:
        """Take in what one transaction has kept."""
        ...

    def availability_changed(self, problem: str) -> None:
        """Learn what prevents keeping; empty: nothing any more."""
        ...


class Writer:
    """The thread. `put` and `start` are for the loop; everything else runs on the thread."""

    def __init__(self, path: Path, options: SqliteOptions, listener: Listener) -> None:
        """Prepare for a file; `start` opens it."""
        self._path = path
        self._options = options
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._pending: deque[Append] = deque()
        self._fault: Fault | None = None
        self._problem = ""
        self._retry_at = 0.0
        self._retry_s = options.retry_s
        self._looked_at = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="mondrian-log", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[int] = self._loop.create_future()

    async def start(self) -> None:
        """Start the thread and return when the file is open; raises StartupError."""
        self._thread.start()
        await self._opened

    def put(self, message: Append | Operation[Any]) -> None:
        """Queue something; appends are kept in the order in which they come."""
        self._queue.put(message)

    async def close(self) -> int:
        """Keep what is queued and end the thread; return how many events could not be kept."""
        self._queue.put(_Close())
        lost = await asyncio.shield(self._ended)
        self._thread.join()
        return lost

    # The thread.

    def _run(self) -> None:
        try:
            with open_database(
                self._path,
                full_synchronous=self._options.full_synchronous,
                max_file_bytes=self._options.max_file_bytes,
            ) as database:
                self._tell(_resolve, self._opened)
                while not self._closing:
                    self._turn_safely(database)
                self._settle(database)
        except StartupError as error:
            self._tell(_resolve, self._opened, error)
        finally:
            self._tell(self._end)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(len(self._pending))

    def _turn_safely(self, database: Database) -> None:
        """Take a turn; a defect of ours makes the log unavailable, but does not silence it."""
        try:
            self._turn(database)
        except Exception as error:
            self._fail(database, error)

    def _turn(self, database: Database) -> None:
        """Take what is queued, and keep it."""
        operations = self._take()
        together = [item for item in operations if item.kind is not Kind.DELETION]
        if self._fault is None:
            self._keep(database, together)
        else:
            self._refuse(database, together)
            self._retry(database)
        for deletion in (item for item in operations if item.kind is Kind.DELETION):
            self._delete(database, deletion)
        if not (operations or self._pending or self._closing or self._fault):
            self._look_after(database)

    def _take(self) -> Sequence[Operation[Any]]:
        """Return the operations that are queued, and add the appends to the pending ones; waits for the first."""
        operations: list[Operation[Any]] = []
        with contextlib.suppress(queue.Empty):
            self._sort(self._queue.get(timeout=self._patience_s()), operations)
            for _ in range(_GROUP_APPENDS):
                if len(operations) >= _GROUP_OPERATIONS:
                    break
                self._sort(self._queue.get_nowait(), operations)
        return operations

    def _sort(self, message: _Message, operations: list[Operation[Any]]) -> None:
        match message:
            case Append():
                self._pending.append(message)
            case Operation():
                operations.append(message)
            case _Close():
                self._closing = True

    def _patience_s(self) -> float:
        if self._fault is Fault.PASSING:
            return min(self._options.idle_s, max(0.001, self._retry_at - time.monotonic()))
        return 0.001 if self._pending and self._fault is None else self._options.idle_s

    def _keep(self, database: Database, operations: Sequence[Operation[Any]]) -> None:
        """Write pending appends and operations in one transaction, and tell."""
        appends = list(itertools.islice(self._pending, _GROUP_APPENDS))
        if not appends and not operations:
            return
        try:
            self._transact(database, appends, operations)
        except Exception as error:
            self._fail(database, error)
            self._refuse(database, operations)
            return
        for _ in appends:
            self._pending.popleft()
        self._tell(self._listener.kept, [item.event for item in appends], operations)

    def _transact(self, database: Database, appends: Sequence[Append], operations: Sequence[Operation[Any]]) -> None:
        """Do everything or nothing; an operation that the file is not to blame for fails alone."""
        wanted = [operation for operation in operations if operation.is_wanted]
        while True:
            alone = not wanted and events.fits_one_statement(appends)
            with contextlib.nullcontext() if alone else _transaction(database.connection):
                events.append(database.connection, appends, keep_images=self._options.keep_images)
                spoiled = _execute_all(database.connection, wanted)
                if spoiled is not None:
                    database.connection.execute("ROLLBACK")
            if spoiled is None:
                break
            wanted.remove(spoiled)
        if any(operation.kind is not Kind.READ for operation in wanted) or self._is_time_to_look():
            database.check_identity()

    def _is_time_to_look(self) -> bool:
        """Whether the file was last looked at a while ago; looking at each commit would slow down the appends."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        return True

    def _delete(self, database: Database, operation: Operation[Any]) -> None:
        """Run a deletion in its own transaction, also while nothing else can be written."""
        if self._fault is Fault.LASTING:
            operation.fail(self._unavailable())
        else:
            try:
                self._transact(database, (), (operation,))
            except Exception as error:
                self._fail(database, error)
                operation.fail(self._unavailable())
        self._tell(self._listener.kept, (), (operation,))

    def _refuse(self, database: Database, operations: Sequence[Operation[Any]]) -> None:
        """Answer operations while nothing can be written: only reading works, and not from a damaged file."""
        for operation in operations:
            if operation.kind is Kind.READ and self._fault is Fault.PASSING:
                self._read_alone(database, operation)
            else:
                operation.fail(self._unavailable())
        if operations:
            self._tell(self._listener.kept, (), operations)

    def _read_alone(self, database: Database, operation: Operation[Any]) -> None:
        try:
            _execute(database.connection, operation)
        except Exception as error:
            self._fail(database, error)
            operation.fail(self._unavailable())

    def _retry(self, database: Database) -> None:
        """Try again when it is time."""
        if self._fault is not Fault.PASSING or time.monotonic() < self._retry_at:
            return
        # Folding the write-ahead log into the file frees its own space, which may be all that there is.
        _checkpoint(database)
        try:
            # A deletion may have gone through in the meantime.
            self._pending = deque(events.still_active(database.connection, self._pending))
            while self._pending:
                appends = list(itertools.islice(self._pending, _GROUP_APPENDS))
                self._transact(database, appends, ())
                for _ in appends:
                    self._pending.popleft()
                self._tell(self._listener.kept, [item.event for item in appends], ())
            self._probe(database)
        except Exception as error:
            self._fail(database, error)
        else:
            self._fault, self._problem, self._retry_s = None, "", self._options.retry_s
            self._tell(self._listener.availability_changed, "")

    def _probe(self, database: Database) -> None:
        """Raise unless something can be written."""
        with _transaction(database.connection):
            database.connection.execute("UPDATE totals SET kept_bytes = kept_bytes")
        database.check_identity()

    def _fail(self, database: Database, error: Exception) -> None:
        """Remember what is wrong, tell it once, and set the time of the next attempt."""
        fault = fault_of(error)
        if fault is None:
            _log.error("the log's own defect", exc_info=error)
            fault = Fault.LASTING
        if fault is Fault.LASTING and isinstance(error, FileGone):
            # If only the write-ahead log was removed, this rescues what it held.
            _checkpoint(database)
        if self._fault is None or (fault is Fault.LASTING and self._fault is Fault.PASSING):
            self._problem = f"{self._path} {words_for(error)}"
            self._tell(self._listener.availability_changed, self._problem)
        self._fault = Fault.LASTING if self._fault is Fault.LASTING else fault
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(self._options.retry_max_s, 2 * self._retry_s)

    def _unavailable(self) -> LogUnavailable:
        # The problem itself names files: it is for the operator.
        retry_after_s = self._options.retry_max_s if self._fault is Fault.PASSING else None
        return LogUnavailable("events cannot be kept at present", retry_after_s=retry_after_s)

    def _look_after(self, database: Database) -> None:
        """Look while nothing else is to do whether the file is still there, and give back space in small pieces."""
        try:
            database.check_identity()
            free = database.connection.execute("PRAGMA freelist_count").fetchone()[0]
            if free > _VACUUM_ABOVE_PAGES:
                # `execute` takes one step of a statement without columns, which is one page; `executescript` all.
                database.connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        except Exception as error:
            self._fail(database, error)

    def _settle(self, database: Database) -> None:
        """Keep what is pending, in a last attempt, and fold the write-ahead log into the file."""
        while self._pending and self._fault is None:
            self._keep(database, ())
        self._retry_at = 0.0
        self._retry(database)
        if self._fault is None:
            _checkpoint(database)

    def _tell(self, call: Callable[..., object], *arguments: object) -> None:
        """Call on the loop, unless it is gone, as when the whole process ends."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


def _checkpoint(database: Database) -> None:
    """Fold the write-ahead log into the file as far as that goes."""
    with contextlib.suppress(sqlite3.Error):
        database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Commit what the block does, or take it back."""
    connection.execute("BEGIN")
    try:
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _execute_all(connection: sqlite3.Connection, operations: Sequence[Operation[Any]]) -> Operation[Any] | None:
    """Execute operations; return the one whose failure makes the transaction unfit to be committed, if any."""
    for operation in operations:
        if not _execute(connection, operation):
            return operation
    return None


def _execute(connection: sqlite3.Connection, operation: Operation[Any]) -> bool:
    """Execute an operation; return False if it failed and may have left something half done."""
    try:
        operation.execute(connection)
    except _ANSWERS as error:
        operation.fail(error)
    except Damaged as error:
        operation.fail(LogUnavailable(str(error)))
    except Exception as error:
        if fault_of(error) is not None:
            raise
        operation.fail(error)
        return False
    return True


def _resolve(future: "asyncio.Future[None]", error: Exception | None = None) -> None:
    """End a future, unless whoever waited for it has gone."""
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
