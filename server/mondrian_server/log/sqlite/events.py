"""Events in SQL: appended in groups, read in pages; the terminal one ends the record."""

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mondrian_server.errors import EventsExpired
from mondrian_server.events import Cancelled, Completed, Event, Failed, Terminal, Token
from mondrian_server.log.codec import Damaged, decode_payload, encode_terminal, seal
from mondrian_server.log.interface import State
from mondrian_server.log.sqlite import images, records

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
GROUP = 64
"""How many rows one statement inserts at most. Few statements, because each one lets go of the interpreter, and a busy
loop gives it back after 5 ms only."""

_ROW_BYTES = 24
"""What a row occupies beside its payload, about."""


@dataclass(frozen=True, slots=True)
class Append:
    """An event on its way to the file: of which analysis, and encoded."""

    number: int
    event: Event
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Active:
    """Where an active analysis stands: its last kept sequence, and whether its caller wants it cancelled."""

    number: int
    name: str
    kept: int
    is_cancelling: bool


def append(connection: sqlite3.Connection, appends: Sequence[Append], *, keep_images: bool) -> None:
    """Write events, and end the analyses whose terminal event is among them."""
    rows = [
        (item.number, item.event.sequence, _to_us(item.event.create_time), item.event.advisor, item.encoded)
        for item in appends
    ]
    for start in range(0, len(rows), GROUP):
        group = rows[start : start + GROUP]
        places = ", ".join(["(?, ?, ?, ?, ?)"] * len(group))
        connection.execute(f"INSERT INTO events VALUES {places}", [value for row in group for value in row])  # noqa: S608 - places only
    for item in appends:
        payload = item.event.payload
        if isinstance(payload, Terminal):
            _end(connection, item, payload, keep_images=keep_images)


def fits_one_statement(appends: Sequence[Append]) -> bool:
    """Whether `append` writes these in one statement, which needs no transaction around it."""
    return len(appends) <= GROUP and not any(item.event.is_terminal for item in appends)


def read(connection: sqlite3.Connection, name: str, after_sequence: int, limit: int) -> tuple[Event, ...]:
    """Return a page of events; raises KeyError, EventsExpired or Damaged."""
    number, _, expired = records.state_of(connection, name)
    if expired:
        raise EventsExpired(f"the events of {name} were deleted because of their age or size")
    rows = connection.execute(
        "SELECT sequence, create_time_us, advisor, payload FROM events"
        " WHERE number = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        (number, after_sequence, limit),
    ).fetchall()
    return tuple(
        Event(
            sequence=sequence,
            analysis=name,
            create_time=_EPOCH + create_time_us * _MICROSECOND,
            payload=decode_payload(payload),
            advisor=advisor,
        )
        for sequence, create_time_us, advisor, payload in rows
    )


def last_sequence(connection: sqlite3.Connection, name: str) -> int:
    """Return the sequence of the last event; raises KeyError or EventsExpired."""
    number, _, expired = records.state_of(connection, name)
    if expired:
        raise EventsExpired(f"the events of {name} were deleted because of their age or size")
    return _last_of(connection, number)


def _last_of(connection: sqlite3.Connection, number: int) -> int:
    """Return the sequence of an analysis's last event, 0 where it has none."""
    return connection.execute("SELECT max(sequence) FROM events WHERE number = ?", (number,)).fetchone()[0] or 0


def active(connection: sqlite3.Connection) -> Sequence[Active]:
    """Return where all active analyses stand."""
    rows = connection.execute("SELECT number, name, cancelling FROM analyses WHERE state = 1").fetchall()
    return [
        Active(number, name, _last_of(connection, number), is_cancelling=bool(cancelling))
        for number, name, cancelling in rows
    ]


def still_active(connection: sqlite3.Connection, appends: Sequence[Append]) -> Sequence[Append]:
    """Leave out events of analyses that were deleted in the meantime."""
    numbers = {item.number for item in appends}
    there = {
        number
        for number in numbers
        if connection.execute("SELECT 1 FROM analyses WHERE number = ? AND state = 1", (number,)).fetchone()
    }
    return [item for item in appends if item.number in there]


def _end(connection: sqlite3.Connection, item: Append, terminal: Terminal, *, keep_images: bool) -> None:
    """Write the end into the record, and let go of the images."""
    text = terminal.text if isinstance(terminal, Completed) else _text_so_far(connection, item.number)
    if not keep_images:
        images.delete(connection, item.number)
    (kept_bytes,) = connection.execute(
        "SELECT coalesce(sum(length(payload) + ?2), 0) + ?3"
        " + (SELECT coalesce(sum(length(data)), 0) FROM images WHERE number = ?1)"
        " + (SELECT length(spec) FROM analyses WHERE number = ?1)"
        " FROM events WHERE number = ?1",
        (item.number, _ROW_BYTES, len(text)),
    ).fetchone()
    connection.execute(
        "UPDATE analyses SET state = ?, end_time_s = ?, terminal = ?, text = ?, cancelling = 0, kept_bytes = ?"
        " WHERE number = ?",
        (
            _state_of(terminal),
            item.event.create_time.timestamp(),
            encode_terminal(terminal),
            seal(text.encode()),
            kept_bytes,
            item.number,
        ),
    )
    records.add_to_total(connection, kept_bytes)


def _text_so_far(connection: sqlite3.Connection, number: int) -> str:
    """Return the text of the tokens that were kept."""
    rows = connection.execute("SELECT payload FROM events WHERE number = ? ORDER BY sequence", (number,))
    return "".join(_token_text(payload) for (payload,) in rows)


def _token_text(encoded: bytes) -> str:
    """Return the text of a token; none of other events, and of a damaged one, so that the analysis can end."""
    with contextlib.suppress(Damaged):
        payload = decode_payload(encoded)
        if isinstance(payload, Token):
            return payload.text
    return ""


def _state_of(terminal: Terminal) -> State:
    match terminal:
        case Completed():
            return State.COMPLETED
        case Failed():
            return State.FAILED
        case Cancelled():
            return State.CANCELLED


def _to_us(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
