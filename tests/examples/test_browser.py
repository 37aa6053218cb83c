"""The browser example: a page of somebody's own, on another origin than the gateway, over a line that breaks."""

import contextlib
import functools
import re
import shutil
import threading
from collections.abc import AsyncGenerator, Generator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.browser.chromium import chromium, window
from tests.examples.cutting import cutting_proxy
from tests.service.calls import Running

CLIENTS = Path(__file__).parents[2] / "clients"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Say nothing."""


@pytest_asyncio.fixture(scope="module")
async def browser() -> AsyncGenerator[Browser]:
    """A running Chromium."""
    async with chromium() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Generator[str]:
    """Somebody's site: the example with mondrian.js beside it, as it says."""
    shutil.copy(CLIENTS / "examples" / "browser.html", tmp_path)
    shutil.copy(CLIENTS / "web" / "mondrian.js", tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/browser.html"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.asynccontextmanager
async def page_at(browser: Browser, site: str, port: int) -> AsyncGenerator[Page]:
    """Open the example for a gateway at a port."""
    async with window(browser) as (page, _):
        await page.goto(f"{site}?server=http://127.0.0.1:{port}")
        yield page


async def test_the_page_writes_the_whole_text_over_lost_connections(
    up: Running, browser: Browser, site: str, photo: Path
) -> None:
    """A photo is uploaded, the text is written to its end, and it is the text that the server keeps."""
    assert up.service.gateway is not None
    proxied = cutting_proxy(up.service.gateway.port, cuts=3, after_bytes=5000)
    async with proxied as proxy, page_at(browser, site, proxy.port) as page:
        await page.set_input_files("#photo", photo)
        await page.click("#start")
        await expect(page.locator("#note")).to_have_text(re.compile(r"^\d+ tokens$"), timeout=60_000)
        kept = await up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(page_size=1))
        assert await page.text_content("#text") == kept.analyses[0].text
        assert proxy.cuts == 3


async def test_the_page_says_what_the_server_refuses(up: Running, browser: Browser, site: str, tmp_path: Path) -> None:
    """A file that is no picture is refused in the server's words, and the page can ask again."""
    assert up.service.gateway is not None
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    async with page_at(browser, site, up.service.gateway.port) as page:
        await page.set_input_files("#photo", bad)
        await page.click("#start")
        await expect(page.locator("#note")).to_contain_text("config.images[0].data", timeout=60_000)
        await expect(page.locator("#start")).to_be_enabled()
