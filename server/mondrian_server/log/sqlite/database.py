"""The file: begun, checked, opened, and looked at while it is open."""

import contextlib
import os
import sqlite3
from collections.abc import Generator
from pathlib import Path

from mondrian_server.errors import StartupError
from mondrian_server.log.sqlite import schema
from mondrian_server.log.sqlite.faults import FileGone, words_for

_MAGIC = b"SQLite format 3\x00"
_CACHE_KIB = 16 * 1024
_CHECKPOINT_PAGES = 2000
_WAL_LIMIT_BYTES = 16 << 20
_VACUUM_PAGES = 500
_VACUUM_ABOVE_PAGES = 4096
_CHECKED_BYTES = 32 << 20
"""Files up to this size are checked whole at the start (about 0.1 s); in larger ones, what the start reads."""

_ONLY_WAL = "is gone, but {wal} is there, with events of the missing file"


class Database:
    """An open file: its connection, for use on the thread that opened it, and what it looked like when opened."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Take charge of a connection that is ready for use."""
        self.connection = connection
        self._path = path
        self._identities: tuple[tuple[int, int], ...] = ()

    def remember_identity(self) -> None:
        """Take note of which files stand at the paths of the database and its write-ahead log."""
        self._identities = tuple(map(_identity, _files(self._path)))

    def check_identity(self) -> None:
        """Raise FileGone if another file, or none, stands in the place of the database or its write-ahead log."""
        for path, identity in zip(_files(self._path), self._identities, strict=True):
            try:
                now = _identity(path)
            except OSError as error:
                raise FileGone(f"is gone ({path.name}: {os.strerror(error.errno or 0)})") from error
            if now != identity:
                raise FileGone(f"was replaced ({path.name} is another file)")

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file as far as that goes."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def give_back_space(self) -> None:
        """Make the file a little shorter if much of it is free."""
        if self.connection.execute("PRAGMA freelist_count").fetchone()[0] > _VACUUM_ABOVE_PAGES:
            # `execute` takes one step of a statement without columns, which is one page; `executescript` all.
            self.connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    def prove_writable(self) -> None:
        """Write something, which also brings the write-ahead log into being."""
        self.connection.execute("UPDATE totals SET kept_bytes = kept_bytes")


@contextlib.contextmanager
def open_database(path: Path, *, full_synchronous: bool, max_file_bytes: int) -> Generator[Database]:
    """Open the file, beginning it where there is none; raises StartupError in one line.

    A file that is not ours, damaged, or of a newer version is refused, and left as it is to the byte.

    Args:
        path: of the database; the write-ahead log stands beside it.
        full_synchronous: flush at each commit, so that a power cut takes nothing back.
        max_file_bytes: how large the file may grow; 0: as large as the disk.

    """
    with contextlib.ExitStack() as stack:
        with _startup_errors(path):
            if not path.exists():
                _begin(path)
            _inspect(path)
            connection = stack.enter_context(contextlib.closing(_connect(f"{path.absolute().as_uri()}?mode=rw")))
            _configure(connection, full_synchronous=full_synchronous, max_file_bytes=max_file_bytes)
            schema.migrate(connection)
            database = Database(connection, path)
            database.prove_writable()
            # Left by the inspection after a crash. We hold the file exclusively, so nobody uses it.
            path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
            database.remember_identity()
        yield database


def inspect_file(path: Path) -> None:
    """Look at a file that nobody holds, and leave nothing behind; raises StartupError where it could not be opened."""
    index = path.with_name(f"{path.name}-shm")
    had_index = index.exists()
    with _startup_errors(path):
        if not path.exists() and _has_wal(path):
            raise StartupError(_ONLY_WAL.format(wal=_files(path)[1].name))
        _inspect(path)
        if not had_index:
            index.unlink(missing_ok=True)


@contextlib.contextmanager
def _startup_errors(path: Path) -> Generator[None]:
    """Turn what goes wrong into one line that names the file."""
    try:
        yield
    except StartupError as error:
        raise StartupError(f"log: {path} {error}") from error
    except sqlite3.Error as error:
        raise StartupError(f"log: {path} {words_for(error)}") from error
    except OSError as error:
        raise StartupError(f"log: {path} cannot be opened ({os.strerror(error.errno or 0)})") from error


def _connect(uri: str) -> sqlite3.Connection:
    """Connect with transactions in our own hands."""
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0, cached_statements=256)


def _begin(path: Path) -> None:
    """Make an empty database under another name and put it in place whole, so that an empty file is always a fault."""
    if _has_wal(path):
        raise StartupError(_ONLY_WAL.format(wal=_files(path)[1].name))
    new = path.with_name(f"{path.name}.new")
    for leftover in (new, *_files(new)):
        leftover.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(_connect(f"{new.absolute().as_uri()}?mode=rw")) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # flushed whole before it is put in place
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        schema.migrate(connection)
    _flush(new)
    new.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _inspect(path: Path) -> None:
    """Look at the file without the means to change it; closing a connection that may write can change the file."""
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if not magic:
        raise StartupError("is empty: it was cut off, and is left as it is")
    if magic != _MAGIC:
        raise StartupError("is not an SQLite database, and is left as it is")
    # A file without a write-ahead log is read without locks, which leaves no trace beside it.
    how = "mode=ro" if _has_wal(path) else "mode=ro&immutable=1"
    with contextlib.closing(_connect(f"{path.absolute().as_uri()}?{how}")) as connection:
        connection.execute("PRAGMA cell_size_check = ON")
        if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
            raise StartupError("is an SQLite database of something else, and is left as it is")
        schema.version(connection)
        _check(connection, path)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise if the file is damaged, as far as its size allows to look."""
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if path.stat().st_size <= _CHECKED_BYTES:
        findings = connection.execute("PRAGMA quick_check(1)").fetchone()
        if findings[0] != "ok":
            raise StartupError(f"is damaged, and is left as it is ({' '.join(str(findings[0]).split())})")


def _configure(connection: sqlite3.Connection, *, full_synchronous: bool, max_file_bytes: int) -> None:
    # Exclusive: a second process is refused by SQLite as well, and the index of the WAL is in our memory, not in a
    # mapped file whose loss would kill us.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StartupError(f"cannot be used: its journal mode is {mode}, not WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if full_synchronous else 'NORMAL'}")
    # On macOS a plain fsync does not reach the medium.
    connection.execute(f"PRAGMA fullfsync = {int(full_synchronous)}")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA secure_delete = FAST")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    if max_file_bytes:
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {max(1, max_file_bytes // page_bytes)}")


def _files(path: Path) -> tuple[Path, Path]:
    return path, path.with_name(f"{path.name}-wal")


def _has_wal(path: Path) -> bool:
    wal = _files(path)[1]
    return wal.exists() and wal.stat().st_size > 0


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
