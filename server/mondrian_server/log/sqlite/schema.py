"""The schema of the SQLite log, as the steps by which it came about."""

import sqlite3
from collections.abc import Sequence

from mondrian_server.errors import StartupError

APPLICATION_ID = 0x4D4F4E44
"""`MOND`, in the file's header: says whose file it is."""

# number: of arrival. kept_bytes: what an ended analysis occupies, 0 once expired. cancelling: the caller's wish.
_ANALYSES = """
CREATE TABLE analyses (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  caller TEXT NOT NULL,
  request_id TEXT NOT NULL,
  digest BLOB NOT NULL,
  create_time_s REAL NOT NULL,
  state INTEGER NOT NULL,
  end_time_s REAL,
  cancelling INTEGER NOT NULL DEFAULT 0,
  expired INTEGER NOT NULL DEFAULT 0,
  kept_bytes INTEGER NOT NULL DEFAULT 0,
  terminal BLOB,
  text BLOB,
  spec BLOB NOT NULL
) STRICT
"""

_EVENTS = """
CREATE TABLE events (
  number INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  create_time_us INTEGER NOT NULL,
  advisor TEXT NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (number, sequence)
) STRICT, WITHOUT ROWID
"""

# A file as it came has no size and no digest; a picture has both.
_IMAGES = """
CREATE TABLE images (
  number INTEGER NOT NULL,
  position INTEGER NOT NULL,
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  digest BLOB NOT NULL,
  checksum INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (number, position)
) STRICT
"""

STEPS: Sequence[Sequence[str]] = (
    (
        _ANALYSES,
        "CREATE UNIQUE INDEX analyses_by_request ON analyses (caller, request_id) WHERE request_id <> ''",
        "CREATE INDEX analyses_by_state ON analyses (caller, state, number)",
        "CREATE INDEX analyses_active ON analyses (number) WHERE state = 1",
        "CREATE INDEX analyses_ended ON analyses (end_time_s, number) WHERE state > 1 AND expired = 0",
        "CREATE INDEX analyses_expired ON analyses (end_time_s, number) WHERE expired = 1",
        _EVENTS,
        _IMAGES,
        # One row: the bytes that all ended analyses occupy, so that expiry need not add them up.
        "CREATE TABLE totals (only INTEGER PRIMARY KEY CHECK (only = 1), kept_bytes INTEGER NOT NULL) STRICT",
        "INSERT INTO totals VALUES (1, 0)",
    ),
)
"""The statements of each step from one version to the next; the number of steps taken is the file's version."""


def migrate(connection: sqlite3.Connection, steps: Sequence[Sequence[str]] = STEPS) -> None:
    """Bring the schema up to date, each step in a transaction of its own; raises StartupError for a newer file."""
    for number, statements in enumerate(steps[version(connection, steps) :], start=version(connection, steps) + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def version(connection: sqlite3.Connection, steps: Sequence[Sequence[str]] = STEPS) -> int:
    """Return how many steps the file has taken; raises StartupError if it has taken more than we know."""
    number = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if number > len(steps):
        raise StartupError(f"is of version {number}, written by a newer Mondrian; this one knows {len(steps)}")
    return number
