"""The browser that the tests share."""

from collections.abc import AsyncGenerator

import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.chromium import chromium


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncGenerator[Browser]:
    """A running Chromium."""
    async with chromium() as running:
        yield running
