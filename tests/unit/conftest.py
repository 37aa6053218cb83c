"""Offices for the tests of the analyses service."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest_asyncio

from tests.unit.office import Office, Offices


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
