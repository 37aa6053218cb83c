"""The stores that the conformance suite is run on."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from mondrian_server.log.interface import EventLog
from mondrian_server.log.sqlite import SqliteLog, SqliteOptions


class Store(Protocol):
    """A place in which a log can be opened again and again; whoever opens it closes it."""

    async def open(self, *, keep_images: bool = False) -> EventLog:
        """Open the log."""
        ...


class SqliteStore:
    """A folder for an SQLite file. Small tails, so that the suite reads from the file as well."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "events.db"

    async def open(self, *, keep_images: bool = False) -> EventLog:
        """Open the log."""
        return await SqliteLog.open(self._path, SqliteOptions(keep_images=keep_images, tail_events=8))


@pytest.fixture(params=[SqliteStore], ids=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store with nothing in it."""
    return request.param(tmp_path)


@pytest_asyncio.fixture
async def log(store: Store) -> AsyncGenerator[EventLog]:
    """An empty log of each store."""
    opened = await store.open()
    yield opened
    await opened.close()
