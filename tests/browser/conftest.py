"""The browser and the service that the tests share."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.chromium import chromium
from tests.service.calls import Running, settings_for, started


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncGenerator[Browser]:
    """A running Chromium."""
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def up(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A running service on the embedded model, with its gateway; without a browser it is not started."""
    settings = settings_for(tmp_path_factory.mktemp("data"), http_address="127.0.0.1:0")
    async with started(settings) as running:
        yield running


@pytest.fixture(scope="session")
def address(up: Running) -> str:
    """Where the page of the shared service is."""
    return page_address(up)


def page_address(running: Running) -> str:
    """Return where the page of a service is."""
    gateway = running.service.gateway
    assert gateway is not None
    return f"http://127.0.0.1:{gateway.port}/"
