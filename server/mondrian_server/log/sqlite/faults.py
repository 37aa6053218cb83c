"""What can go wrong with the file, and whether it may pass."""

import enum
import sqlite3


class Fault(enum.Enum):
    """How bad it is."""

    PASSING = 1
    """The same may succeed later: the disk is full, or cannot be written now."""
    LASTING = 2
    """The file is gone or damaged; nothing more is done to it."""


class FileGone(Exception):
    """The file at the log's path is not the one that was opened."""


_LASTING = {
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_NOTADB: "is damaged: it is not an SQLite database",
}
_PASSING = {
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
    sqlite3.SQLITE_READONLY: "cannot be written",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_PERM: "cannot be opened",
    sqlite3.SQLITE_BUSY: "is in use by another process",
    sqlite3.SQLITE_LOCKED: "is in use by another process",
    sqlite3.SQLITE_PROTOCOL: "is in use by another process",
    sqlite3.SQLITE_NOMEM: "cannot be read or written: memory is short",
}


def fault_of(error: Exception) -> Fault | None:
    """Return how bad an error of the file is; None: it says nothing about the file."""
    if isinstance(error, FileGone):
        return Fault.LASTING
    code = _primary_code(error)
    if code in _LASTING:
        return Fault.LASTING
    return Fault.PASSING if code in _PASSING else None


def words_for(error: Exception) -> str:
    """Say what is wrong, to stand after the file's path."""
    if isinstance(error, FileGone):
        return str(error)
    code = _primary_code(error)
    return f"{_LASTING.get(code) or _PASSING.get(code) or 'cannot be used'} ({error})"


def _primary_code(error: Exception) -> int:
    """Return SQLite's result code without the extension; 0 for errors that are not of SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
