"""Opening an SQLite log: what is taken over, what is refused, and that what is refused is left as it is."""

import asyncio
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from mondrian_server.errors import StartupError
from mondrian_server.log.sqlite import SqliteLog, schema
from tests.log.files import child, contents, make_read_only, one_line, opened_by_hand, overwrite, page_at, permissions
from tests.log.samples import begun, ended, everything, kept, token

_NOBODY = 65534


@pytest_asyncio.fixture
async def path(tmp_path: Path) -> AsyncGenerator[Path]:
    """The file of a closed log with a few hundred events in it."""
    path = tmp_path / "data" / "events.db"
    path.parent.mkdir()
    log = await SqliteLog.open(path)
    for _ in range(20):
        await ended(log, tokens=30)
    await log.close()
    yield path


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder that other users can reach."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


_others = set[threading.Thread]()
"""The threads of services that other tests share, which are none of these tests' business."""


@pytest.fixture(autouse=True)
def _leave_others_out() -> None:
    _others.clear()
    _others.update(threading.enumerate())


def writing_threads() -> list[str]:
    """Return the threads of logs that a test has opened and not closed."""
    return [thread.name for thread in threading.enumerate() if thread.name == "mondrian-log" and thread not in _others]


async def refusal(path: Path) -> str:
    """Return the line with which a file is refused; fail if the refusal changed anything, or left anything behind."""
    before = contents(path.parent)
    with pytest.raises(StartupError) as refused:
        await SqliteLog.open(path)
    assert contents(path.parent) == before
    assert not writing_threads()
    line = str(refused.value)
    assert one_line(line)
    assert str(path) in line
    return line


async def test_a_closed_log_is_one_file(path: Path) -> None:
    """After closing, nothing but the database is left, no thread either, and only its owner can read it."""
    assert list(contents(path.parent)) == ["events.db"]
    assert not writing_threads()
    assert permissions(path) == 0o600


async def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    """What a newer Mondrian wrote is not touched by an older one."""
    with opened_by_hand(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.STEPS) + 1}")

    assert "newer Mondrian" in await refusal(path)


async def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    """Another program's database is not made ours."""
    path = tmp_path / "events.db"
    with opened_by_hand(path) as connection:
        connection.execute("CREATE TABLE treasures (name TEXT)")

    assert "something else" in await refusal(path)


@pytest.mark.parametrize("content", [b"", b"once upon a time\n" * 300], ids=["empty", "text"])
async def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that was cut off, or is of another kind, is not begun anew."""
    path = tmp_path / "events.db"
    path.write_bytes(content)

    assert "is left as it is" in await refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
async def test_overwritten_bytes_are_noticed(path: Path, share: float) -> None:
    """A damaged file is refused wherever two pages of it were overwritten."""
    overwrite(path, page_at(path, share), 8192)

    assert ("damaged" in await refusal(path)) is (share > 0.0)


@pytest.mark.parametrize("share", [0.3, 0.9])
async def test_a_truncated_file_is_noticed(path: Path, share: float) -> None:
    """A file that was cut off is refused."""
    os.truncate(path, page_at(path, share))

    assert "damaged" in await refusal(path)


async def test_a_damaged_file_with_a_write_ahead_log_is_left_as_it_is(tmp_path: Path) -> None:
    """After a crash, too, looking at a damaged file changes neither it nor the log beside it."""
    path = tmp_path / "live" / "events.db"
    path.parent.mkdir()
    log = await SqliteLog.open(path)
    await ended(log, tokens=300)
    copy = tmp_path / "copy"
    shutil.copytree(path.parent, copy)
    await log.close()
    wal = copy / "events.db-wal"
    assert wal.stat().st_size > 0
    before = contents(copy)
    overwrite(copy / "events.db", 4096, 8 * 4096)
    damaged = contents(copy)

    with pytest.raises(StartupError, match="damaged"):
        await SqliteLog.open(copy / "events.db")

    after = contents(copy)
    after.pop("events.db-shm", None)  # readers leave an index of the write-ahead log behind; it can be lost
    assert after == damaged != before


async def test_a_missing_file_with_a_write_ahead_log_is_noticed(tmp_path: Path) -> None:
    """Where only the write-ahead log is left, nothing is begun anew over it."""
    path = tmp_path / "events.db"
    log = await SqliteLog.open(path)
    await ended(log)
    left_over = path.with_name("events.db-wal").read_bytes()
    await log.close()
    path.unlink()
    path.with_name("events.db-wal").write_bytes(left_over)

    assert "is gone" in await refusal(path)


async def test_a_second_log_on_the_file_is_refused(path: Path) -> None:
    """SQLite itself keeps a second process out, also one that knows nothing of the lock file."""
    log = await SqliteLog.open(path)
    with child("opening", str(path)) as other:
        line = other.communicate(timeout=60)[0].strip()
    await log.close()

    assert "in use by another process" in line


@pytest.mark.parametrize("there", [False, True], ids=["no-file", "file"])
async def test_a_folder_that_cannot_be_written_is_refused(open_folder: Path, there: bool) -> None:
    """A read-only data directory gives one line that says so."""
    path = open_folder / "events.db"
    if there:
        await (await SqliteLog.open(path)).close()
    make_read_only(open_folder)

    with child("opening", str(path), str(_NOBODY)) as process:
        line = process.communicate(timeout=60)[0].strip()

    assert one_line(line)
    assert "cannot be" in line


@pytest.mark.parametrize("yields", [0, 1, 2, 50])
async def test_giving_up_while_opening_leaves_nothing(path: Path, yields: int) -> None:
    """A start that is cancelled at any moment closes what it has opened."""
    opening = asyncio.create_task(SqliteLog.open(path))
    for _ in range(yields):
        await asyncio.sleep(0.0005)
    opening.cancel()
    (result,) = await asyncio.gather(opening, return_exceptions=True)
    if isinstance(result, SqliteLog):
        await result.close()

    assert not writing_threads()
    again = await SqliteLog.open(path)
    await again.close()


async def test_an_old_file_is_brought_up_to_date(tmp_path: Path) -> None:
    """A file of an older version takes the steps that it has not taken, and keeps what is in it."""
    steps = (
        ("CREATE TABLE one (a INTEGER)", "INSERT INTO one VALUES (7)"),
        ("ALTER TABLE one ADD COLUMN b INTEGER DEFAULT 8",),
        ("CREATE TABLE two AS SELECT a + b AS c FROM one",),
    )
    connection = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    schema.migrate(connection, steps[:1])
    assert schema.version(connection, steps) == 1

    schema.migrate(connection, steps)

    assert connection.execute("SELECT c FROM two").fetchall() == [(15,)]
    assert schema.version(connection, steps) == 3
    connection.close()


async def test_a_step_that_fails_is_taken_back(tmp_path: Path) -> None:
    """A migration that breaks off leaves the file at the last whole step."""
    steps = (("CREATE TABLE one (a INTEGER)",), ("CREATE TABLE two (a INTEGER)", "INSERT INTO three VALUES (1)"))
    connection = sqlite3.connect(tmp_path / "old.db", isolation_level=None)

    with pytest.raises(sqlite3.OperationalError, match="three"):
        schema.migrate(connection, steps)

    assert schema.version(connection, steps) == 1
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("one",)]
    connection.close()


async def test_a_half_begun_file_is_begun_again(tmp_path: Path) -> None:
    """What a crash during the very first start left is no obstacle."""
    path = tmp_path / "events.db"
    path.with_name("events.db.new").write_bytes(b"half")

    log = await SqliteLog.open(path)
    name = await begun(log)
    log.append(name, token())
    await kept(log, name, 1)
    found = await everything(log, name)
    await log.close()

    assert len(found) == 1
    assert not path.with_name("events.db.new").exists()
