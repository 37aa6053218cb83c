"""Records in SQL: what is kept of an analysis beside its events."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from mondrian_server.log.codec import Damaged, decode_terminal, seal, unseal
from mondrian_server.log.interface import Record, RequestIdTaken, Size, State

_log = structlog.stdlib.get_logger(__name__)

_COLUMNS = "number, name, caller, request_id, digest, create_time_s, state, end_time_s, expired, spec, text, terminal"


def insert(connection: sqlite3.Connection, record: Record) -> int:
    """Add an active record and return its number; raises RequestIdTaken, or ValueError where the name is taken."""
    cursor = connection.execute(
        "INSERT INTO analyses (name, caller, request_id, digest, create_time_s, state, spec)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            record.name,
            record.caller,
            record.request_id,
            record.digest,
            record.create_time_s,
            State.ACTIVE,
            seal(record.spec),
        ),
    )
    if cursor.rowcount == 1 and cursor.lastrowid is not None:
        return cursor.lastrowid
    taken = find(connection, record.caller, record.request_id)
    if taken is None:
        raise ValueError(f"{record.name} is in the log already")
    raise RequestIdTaken(taken)


def get(connection: sqlite3.Connection, name: str) -> Record:
    """Return a record; raises KeyError."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM analyses WHERE name = ?", (name,)).fetchone()  # noqa: S608 - constant
    if row is None:
        raise KeyError(name)
    return _record(row)


def find(connection: sqlite3.Connection, caller: str, request_id: str) -> Record | None:
    """Return the caller's record of a request id; there is none of an empty one."""
    # The index leaves out empty ids, and is used only where the statement says so too.
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM analyses WHERE caller = ? AND request_id = ? AND request_id <> ''",  # noqa: S608 - constant
        (caller, request_id),
    ).fetchone()
    return None if row is None else _record(row)


def active(connection: sqlite3.Connection) -> Sequence[Record]:
    """Return all active records, oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM analyses WHERE state = 1 ORDER BY number")  # noqa: S608 - constant
    return _readable(rows)


def newest(
    connection: sqlite3.Connection, caller: str, states: Sequence[State], *, before_number: int, limit: int
) -> Sequence[Record]:
    """Return a page of a caller's records, newest first."""
    wanted = tuple(states) or tuple(State)
    # One index serves every choice of states: the newest of each, and the newest of these.
    each = (
        "SELECT * FROM (SELECT number FROM analyses WHERE caller = ? AND state = ? AND number < ?"
        " ORDER BY number DESC LIMIT ?)"
    )
    pages = " UNION ALL ".join([each] * len(wanted))
    bound = before_number or 1 << 62
    parameters = [value for state in wanted for value in (caller, int(state), bound, limit)]
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM analyses WHERE number IN ({pages}) ORDER BY number DESC LIMIT ?",  # noqa: S608 - constants
        (*parameters, limit),
    )
    return _readable(rows)


def number_of(connection: sqlite3.Connection, name: str) -> int:
    """Return an analysis's number; raises KeyError."""
    return _fields(connection, "number", name)[0]


def state_of(connection: sqlite3.Connection, name: str) -> tuple[int, State, bool]:
    """Return an analysis's number, its state, and whether it has expired; raises KeyError."""
    number, state, expired = _fields(connection, "number, state, expired", name)
    return number, State(state), bool(expired)


def wish_cancelled(connection: sqlite3.Connection, name: str) -> bool:
    """Keep the wish to cancel and return whether the analysis is active; raises KeyError."""
    number, state, _ = state_of(connection, name)
    if state is State.ACTIVE:
        connection.execute("UPDATE analyses SET cancelling = 1 WHERE number = ?", (number,))
    return state is State.ACTIVE


def add_to_total(connection: sqlite3.Connection, count: int) -> None:
    """Count bytes of ended analyses in, or out."""
    connection.execute("UPDATE totals SET kept_bytes = kept_bytes + ?", (count,))


def size(connection: sqlite3.Connection) -> Size:
    """Return how large the log is; without the part of it that stands in the write-ahead log alone."""
    file_bytes = [connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in ("page_count", "page_size")]
    (kept_bytes,) = connection.execute("SELECT kept_bytes FROM totals").fetchone()
    (analyses,) = connection.execute("SELECT count(*) FROM analyses").fetchone()
    return Size(file_bytes=file_bytes[0] * file_bytes[1], kept_bytes=kept_bytes, analyses=analyses)


def _fields(connection: sqlite3.Connection, columns: str, name: str) -> tuple[Any, ...]:
    row = connection.execute(f"SELECT {columns} FROM analyses WHERE name = ?", (name,)).fetchone()  # noqa: S608 - constants
    if row is None:
        raise KeyError(name)
    return row


def _readable(rows: Iterable[tuple[Any, ...]]) -> Sequence[Record]:
    """Leave out damaged records, of which the operator is told: they must not bar the way to the others."""
    found: list[Record] = []
    for row in rows:
        try:
            found.append(_record(row))
        except Damaged as error:
            _log.error("damaged record", analysis=row[1], problem=str(error))
    return found


def _record(row: tuple[Any, ...]) -> Record:
    number, name, caller, request_id, digest, create_time_s, state, end_time_s, expired, spec, text, terminal = row
    final_text = "" if text is None else unseal(text).decode()
    return Record(
        number=number,
        name=name,
        caller=caller,
        request_id=request_id,
        digest=digest,
        create_time_s=create_time_s,
        spec=unseal(spec),
        state=State(state),
        end_time_s=end_time_s,
        terminal=None if terminal is None else decode_terminal(terminal, final_text),
        text=final_text,
        expired=bool(expired),
    )
