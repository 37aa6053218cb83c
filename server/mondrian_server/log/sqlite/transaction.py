"""Transactions: all of a group or nothing, and an operation's own failure stays its own."""

import contextlib
import sqlite3
from collections.abc import Generator, Sequence
from typing import Any

from mondrian_server.errors import EventsExpired, LogUnavailable
from mondrian_server.log.codec import Damaged
from mondrian_server.log.interface import RequestIdTaken
from mondrian_server.log.sqlite import events
from mondrian_server.log.sqlite.events import Append
from mondrian_server.log.sqlite.faults import fault_of
from mondrian_server.log.sqlite.operation import Operation

_ANSWERS = (KeyError, ValueError, RequestIdTaken, EventsExpired)
"""Errors that answer an operation; it raises them before it has changed anything."""


def transact(
    connection: sqlite3.Connection,
    appends: Sequence[Append],
    operations: Sequence[Operation[Any]],
    *,
    keep_images: bool,
) -> None:
    """Commit appends and operations together; raises what the file is to blame for, and then nothing is changed."""
    remaining = list(operations)
    while True:
        needs_none = not remaining and events.fits_one_statement(appends)
        with contextlib.nullcontext() if needs_none else _transaction(connection):
            events.append(connection, appends, keep_images=keep_images)
            spoiler = next((each for each in remaining if not execute(connection, each)), None)
            if spoiler is not None:
                connection.execute("ROLLBACK")
        if spoiler is None:
            return
        remaining.remove(spoiler)


def execute(connection: sqlite3.Connection, operation: Operation[Any]) -> bool:
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


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Commit what the block does, unless it took it back itself, or take it back."""
    connection.execute("BEGIN")
    try:
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
