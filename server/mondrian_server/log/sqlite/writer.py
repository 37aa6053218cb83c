"""The writer: one thread that owns the connection and turns what is queued into transactions."""

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from mondrian_server.errors import StartupError
from mondrian_server.events import Event
from mondrian_server.log.sqlite import events
from mondrian_server.log.sqlite.condition import Condition
from mondrian_server.log.sqlite.database import Database, open_database
from mondrian_server.log.sqlite.events import Append
from mondrian_server.log.sqlite.faults import Fault, FileGone
from mondrian_server.log.sqlite.operation import Kind, Operation
from mondrian_server.log.sqlite.options import SqliteOptions
from mondrian_server.log.sqlite.transaction import execute, transact

_GROUP_APPENDS = 2048
_GROUP_OPERATIONS = 256
_LOOK_S = 0.25


class _Close:
    """The last message."""


_Message: TypeAlias = Append | Operation[Any] | _Close


class Listener(Protocol):
    """Whoever is told on the loop what the thread has done."""

    def kept(self, appended: Sequence[Event], operations: Sequence[Operation[Any]]) -> None:
        """Take in what one transaction has kept."""
        ...

    def availability_changed(self, problem: str, *, lasting: bool) -> None:
        """Learn what prevents keeping; empty: nothing any more. What lasts does so until the log is opened again."""
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
        self._condition = Condition(path, options)
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
        operations, is_idle = self._take()
        together = [item for item in operations if item.kind is not Kind.DELETION]
        if self._condition.fault is None:
            self._keep(database, together)
        else:
            self._refuse(database, together)
            self._retry(database)
        for deletion in (item for item in operations if item.kind is Kind.DELETION):
            self._delete(database, deletion)
        if is_idle and self._condition.fault is None:
            self._look_after(database)

    def _take(self) -> tuple[Sequence[Operation[Any]], bool]:
        """Return the operations that are queued, and add the appends to the pending ones; waits for the first.

        Also returns whether there was nothing to do.
        """
        operations: list[Operation[Any]] = []
        is_idle = not self._pending
        with contextlib.suppress(queue.Empty):
            self._sort(self._queue.get(timeout=self._patience_s()), operations)
            is_idle = False
            for _ in range(_GROUP_APPENDS):
                if len(operations) >= _GROUP_OPERATIONS:
                    break
                self._sort(self._queue.get_nowait(), operations)
        return operations, is_idle

    def _sort(self, message: _Message, operations: list[Operation[Any]]) -> None:
        match message:
            case Append():
                self._pending.append(message)
            case Operation():
                operations.append(message)
            case _Close():
                self._closing = True

    def _patience_s(self) -> float:
        if self._condition.fault is Fault.PASSING:
            return min(self._options.idle_s, self._condition.retry_in_s + 0.001)
        return 0.001 if self._pending and self._condition.fault is None else self._options.idle_s

    def _keep(self, database: Database, operations: Sequence[Operation[Any]]) -> None:
        """Write pending appends and operations in one transaction, and tell."""
        if self._pending or operations:
            try:
                self._keep_group(database, operations)
            except Exception as error:
                self._fail(database, error)
                self._refuse(database, operations)

    def _keep_group(self, database: Database, operations: Sequence[Operation[Any]]) -> None:
        appends = list(itertools.islice(self._pending, _GROUP_APPENDS))
        self._transact(database, appends, operations)
        for _ in appends:
            self._pending.popleft()
        self._tell(self._listener.kept, [item.event for item in appends], operations)

    def _transact(self, database: Database, appends: Sequence[Append], operations: Sequence[Operation[Any]]) -> None:
        wanted = [operation for operation in operations if operation.is_wanted]
        transact(database.connection, appends, wanted, keep_images=self._options.keep_images)
        # Looking at each commit would slow down the appends.
        if any(item.kind is not Kind.READ for item in wanted) or time.monotonic() - self._looked_at > _LOOK_S:
            database.check_identity()
            self._looked_at = time.monotonic()

    def _delete(self, database: Database, operation: Operation[Any]) -> None:
        """Run a deletion in its own transaction, also while nothing else can be written."""
        if self._condition.fault is Fault.LASTING:
            operation.fail(self._condition.unavailable())
        else:
            try:
                self._transact(database, (), (operation,))
                self._condition.retry_soon()
            except Exception as error:
                self._fail(database, error)
                operation.fail(self._condition.unavailable())
        self._tell(self._listener.kept, (), (operation,))

    def _refuse(self, database: Database, operations: Sequence[Operation[Any]]) -> None:
        """Answer operations while nothing can be written: only reading works, and not from a damaged file."""
        for operation in operations:
            if operation.kind is Kind.READ and self._condition.fault is Fault.PASSING:
                self._read_alone(database, operation)
            else:
                operation.fail(self._condition.unavailable())
        if operations:
            self._tell(self._listener.kept, (), operations)

    def _read_alone(self, database: Database, operation: Operation[Any]) -> None:
        try:
            execute(database.connection, operation)
        except Exception as error:
            self._fail(database, error)
            operation.fail(self._condition.unavailable())

    def _retry(self, database: Database) -> None:
        """Try again when it is time."""
        if self._condition.fault is not Fault.PASSING or self._condition.retry_in_s > 0:
            return
        # Folding the write-ahead log into the file frees its own space, which may be all that there is.
        database.checkpoint()
        try:
            # A deletion may have gone through in the meantime.
            self._pending = deque(events.still_active(database.connection, self._pending))
            while self._pending:
                self._keep_group(database, ())
            database.prove_writable()
            database.check_identity()
        except Exception as error:
            self._fail(database, error)
        else:
            self._condition.heal()
            self._tell(partial(self._listener.availability_changed, "", lasting=False))

    def _fail(self, database: Database, error: Exception) -> None:
        """Take note of what is wrong, and tell it once."""
        if isinstance(error, FileGone):
            # If only the write-ahead log was removed, this rescues what it held.
            database.checkpoint()
        if self._condition.worsen(error):
            lasting = self._condition.fault is Fault.LASTING
            self._tell(partial(self._listener.availability_changed, self._condition.problem, lasting=lasting))

    def _look_after(self, database: Database) -> None:
        """Look while nothing else is to do whether the file is still there, and give back space."""
        try:
            database.check_identity()
            database.give_back_space()
        except Exception as error:
            self._fail(database, error)

    def _settle(self, database: Database) -> None:
        """Keep what is pending, in a last attempt, and fold the write-ahead log into the file."""
        while self._pending and self._condition.fault is None:
            self._keep(database, ())
        self._condition.retry_soon()
        self._retry(database)
        if self._condition.fault is None:
            database.checkpoint()

    def _tell(self, call: Callable[..., object], *arguments: object) -> None:
        """Call on the loop, unless it is gone, as when the whole process ends."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


def _resolve(future: "asyncio.Future[None]", error: Exception | None = None) -> None:
    """End a future, unless whoever waited for it has gone."""
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
