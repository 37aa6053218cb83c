"""Deletion in SQL: of one analysis, and of the oldest, a few at a time."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from mondrian_server.log.codec import seal
from mondrian_server.log.interface import State
from mondrian_server.log.sqlite import images, records

_STEP_ANALYSES = 50
_STEP_BYTES = 1 << 20
"""The most that one transaction deletes, so that appends wait for a few milliseconds at worst."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction did: to whom, and whether there may be more to do."""

    names: Sequence[str]
    more: bool


def delete(connection: sqlite3.Connection, name: str) -> None:
    """Delete an analysis with everything that is kept of it; raises KeyError."""
    number, state, expired = records.state_of(connection, name)
    if state is not State.ACTIVE and not expired:
        _take_from_total(connection, number)
    _delete_contents(connection, number)
    connection.execute("DELETE FROM analyses WHERE number = ?", (number,))


def forget(connection: sqlite3.Connection, ended_before_s: float) -> Step:
    """Delete the records of a few expired analyses that ended before a time."""
    rows = connection.execute(
        "SELECT number, name FROM analyses WHERE expired = 1 AND end_time_s < ? ORDER BY end_time_s LIMIT ?",
        (ended_before_s, _STEP_ANALYSES),
    ).fetchall()
    connection.executemany("DELETE FROM analyses WHERE number = ?", [(number,) for number, _ in rows])
    return Step([name for _, name in rows], more=len(rows) == _STEP_ANALYSES)


def expire(connection: sqlite3.Connection, ended_before_s: float, keep_bytes: int) -> Step:
    """Delete what is kept of a few ended analyses, oldest first: the too old, and those beyond `keep_bytes` in all."""
    (total,) = connection.execute("SELECT kept_bytes FROM totals").fetchone()
    rows = connection.execute(
        "SELECT number, name, end_time_s, kept_bytes FROM analyses WHERE state > 1 AND expired = 0"
        " ORDER BY end_time_s, number LIMIT ?",
        (_STEP_ANALYSES,),
    ).fetchall()
    names: list[str] = []
    freed = 0
    for number, name, end_time_s, kept_bytes in rows:
        if freed > _STEP_BYTES or not (end_time_s < ended_before_s or total - freed > keep_bytes):
            break
        _expire_one(connection, number)
        freed += kept_bytes
        names.append(name)
    if names:
        records.add_to_total(connection, -freed)
    return Step(names, more=bool(names))


def _expire_one(connection: sqlite3.Connection, number: int) -> None:
    """Leave the record without spec and text."""
    _delete_contents(connection, number)
    connection.execute(
        "UPDATE analyses SET expired = 1, kept_bytes = 0, spec = ?, text = NULL WHERE number = ?", (seal(b""), number)
    )


def _delete_contents(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("DELETE FROM events WHERE number = ?", (number,))
    images.delete(connection, number)


def _take_from_total(connection: sqlite3.Connection, number: int) -> None:
    (kept_bytes,) = connection.execute("SELECT kept_bytes FROM analyses WHERE number = ?", (number,)).fetchone()
    records.add_to_total(connection, -kept_bytes)
