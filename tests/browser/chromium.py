"""Chromium: the system's own browser, started without a window and asked for nothing but our pages."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.installed import installed

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)


def chromium_path() -> str:
    """Return where Chromium lies; without one, the tests are skipped, and in CI they fail."""
    return installed("chromium", "chromium-browser", "google-chrome", package="chromium")


@contextlib.asynccontextmanager
async def chromium() -> AsyncGenerator[Browser]:
    """Run Chromium."""
    path = chromium_path()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a window did besides what was asked of it."""

    requests: list[str] = field(default_factory=list[str])
    """The addresses of all requests."""
    complaints: list[str] = field(default_factory=list[str])
    """Errors of the page's own scripts, and breaches of its Content-Security-Policy."""


@contextlib.asynccontextmanager
async def window(
    browser: Browser, *, size: tuple[int, int] = (1280, 800), scheme: str = "light", phone: bool = False
) -> AsyncGenerator[tuple[Page, Seen]]:
    """Open a window with a storage of its own; at the end, nothing may have gone wrong in it."""
    width, height = size
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        has_touch=phone,
        is_mobile=phone,
        service_workers="block",
    )
    seen = Seen()
    try:
        yield await _page(context, seen), seen
        assert not seen.complaints, seen.complaints
    finally:
        await context.close()


async def _page(context: BrowserContext, seen: Seen) -> Page:
    page = await context.new_page()
    page.set_default_timeout(60_000)
    context.on("request", lambda request: seen.requests.append(request.url))
    context.on("weberror", lambda error: seen.complaints.append(str(error.error)))
    # Failed requests are expected where a test cuts the line; breaches of the policy are not.
    context.on(
        "console", lambda line: seen.complaints.append(line.text) if "Content Security Policy" in line.text else None
    )
    return page
