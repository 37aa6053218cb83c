"""An SQLite log with much in it: nothing that is asked of it looks at all of it."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from mondrian_server.log.codec import encode_payload, encode_terminal, seal
from mondrian_server.log.interface import EventLog, State
from mondrian_server.log.sqlite import SqliteLog, SqliteOptions
from mondrian_server.log.sqlite.database import open_database
from tests.log.samples import begun, completed, kept, record, token

Result = TypeVar("Result")

_ANALYSES = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO analyses (name, caller, request_id, digest, create_time_s, state, end_time_s, kept_bytes, terminal, text, spec)
SELECT 'analyses/' || lower(hex(randomblob(16))), 'local', 'r' || i, randomblob(32), i, 2, i, 1000, ?, ?, ? FROM n
"""  # noqa: E501 - a table's columns
_EVENTS = """
WITH RECURSIVE e (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM e WHERE i < ?)
INSERT INTO events SELECT number, e.i, 1000000 * number, '', ? FROM analyses, e
"""


def fill(path: Path, analyses: int, events: int) -> None:
    """Make a log with many completed analyses, which ended one second after the other, long ago."""
    with open_database(path, full_synchronous=False, max_file_bytes=0) as database:
        connection = database.connection
        connection.execute("BEGIN")
        connection.execute(
            _ANALYSES, (analyses, encode_terminal(completed("")), seal(b"text" * 20), seal(b"specification" * 20))
        )
        connection.execute(_EVENTS, (events, encode_payload(token())))
        connection.execute("UPDATE totals SET kept_bytes = ?", (analyses * 1000,))
        connection.execute("COMMIT")


async def delays(log: EventLog, name: str, until_done: Callable[[], bool]) -> list[float]:
    """Append to an analysis until something is done; return how long each event took to be kept."""
    found: list[float] = []
    while not until_done():
        began = time.perf_counter()
        await kept(log, name, log.append(name, token()).sequence)
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.002)
    return found


@pytest.mark.alone
async def test_expiry_does_not_hold_up_appends(tmp_path: Path) -> None:
    """While two thousand analyses expire, events go on being kept, none of them after the whole of it.

    Without the small steps, the first event would wait for all of the expiry. The bound is a quarter of that, or half a
    second, which is slack for a busy machine: a step takes some 10 ms.
    """
    fill(tmp_path / "events.db", 2000, 20)
    log = await SqliteLog.open(tmp_path / "events.db")
    name = await begun(log)

    began = time.perf_counter()
    expiry = asyncio.create_task(log.expire(ended_before_s=1500.5, keep_bytes=100_000))
    waits = await delays(log, name, expiry.done)
    took_s = time.perf_counter() - began
    expired = await expiry
    await log.close()

    assert len(expired) == 1900
    assert len(waits) > 5
    assert max(waits) < max(0.5, took_s / 4)


async def test_space_is_given_back(tmp_path: Path) -> None:
    """The space of what has expired is used again: the file does not grow."""
    path = tmp_path / "events.db"
    fill(path, 500, 50)
    log = await SqliteLog.open(path)
    await log.expire(ended_before_s=1e6, keep_bytes=0)
    await log.close()
    before = size(path)

    log = await SqliteLog.open(path)
    name = await begun(log)
    for index in range(5000):
        log.append(name, token(index=index))
    await log.close()

    assert size(path) == before


async def test_an_idle_log_shrinks(tmp_path: Path) -> None:
    """When much space is free and nothing else is to do, the file gives it back to the disk, little by little."""
    path = tmp_path / "events.db"
    log = await SqliteLog.open(path, SqliteOptions(idle_s=60))
    name = await begun(log, files=(bytes(24 << 20),))
    log.append(name, completed(""))
    await kept(log, name, 1)
    await log.close()
    assert size(path) > 24 << 20

    async with asyncio.timeout(20):
        while size(path) > 17 << 20:
            log = await SqliteLog.open(path, SqliteOptions(idle_s=0.01))
            await asyncio.sleep(0.05)  # being idle takes time
            await log.close()


@pytest.mark.parametrize("full", [False, True], ids=["normal", "full"])
def test_synchronous_is_as_asked_for(tmp_path: Path, full: bool) -> None:
    """FULL flushes at each commit; NORMAL does not."""
    with open_database(tmp_path / "events.db", full_synchronous=full, max_file_bytes=0) as database:
        assert database.connection.execute("PRAGMA synchronous").fetchone()[0] == (2 if full else 1)


@pytest.mark.soak
async def test_a_hundred_thousand_analyses(tmp_path: Path) -> None:
    """With 100,000 finished analyses, starting and asking take milliseconds; the figures are printed."""
    path = tmp_path / "events.db"
    fill(path, 100_000, 10)
    figures: dict[str, float] = {}

    async def timed(what: str, work: Awaitable[Result]) -> Result:
        began = time.perf_counter()
        result = await work
        figures[what] = time.perf_counter() - began
        return result

    log = await timed("open", SqliteLog.open(path))
    newest = await timed("list, newest 50", log.list("local", ()))
    await timed("list, 50 in the middle", log.list("local", (), before_number=50_000))
    await timed("list, none in that state", log.list("local", (State.FAILED,)))
    await timed("get", log.get(newest[-1].name))
    await timed("read", log.read(newest[-1].name, 0))
    await timed("find", log.find("local", "r777"))
    await timed("create", begun(log))
    name = await timed("create with a request id", begun(log, record(request_id="new")))
    await timed("append and keep", kept(log, name, log.append(name, token()).sequence))
    expiry = asyncio.create_task(log.expire(ended_before_s=5000.5, keep_bytes=1 << 60))
    waits = sorted(await delays(log, name, expiry.done))
    figures["append during expiry, median"] = waits[len(waits) // 2]
    figures["append during expiry, longest"] = waits[-1]
    await timed("close", log.close())

    for what, seconds in figures.items():
        sys.stdout.write(f"{what}: {1000 * seconds:.1f} ms\n")
    assert len(await expiry) == 5000
    assert all(seconds < 0.5 for seconds in figures.values()), figures


def size(path: Path) -> int:
    """Return a file's length in bytes."""
    return path.stat().st_size
