"""Logs and offices."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest_asyncio

from tests.unit.office import Office, Offices, TestableLog, open_log


@pytest_asyncio.fixture
async def offices(tmp_path: Path) -> AsyncGenerator[Offices]:
    """Offices over one folder, of which the last one is closed at the end."""
    offices = Offices(tmp_path)
    yield offices
    await offices.close()


@pytest_asyncio.fixture
async def office(offices: Offices) -> Office:
    """An office whose engine is ready."""
    return await offices.open()


@pytest_asyncio.fixture
async def log(tmp_path: Path) -> AsyncGenerator[TestableLog]:
    """An open log with nothing in it."""
    log = await open_log(tmp_path / "analyses.db")
    yield log
    await log.close()
