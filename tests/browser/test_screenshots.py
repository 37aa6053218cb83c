"""Pictures of the page, for people to look at: they are kept in `build/screenshots`."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.chromium import window
from tests.browser.visitor import SAMPLES, Visitor

FOLDER = Path(__file__).parents[2] / "build" / "screenshots"
SIZES = {"phone": (390, 844), "desktop": (1280, 800)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["phone", "desktop"])
async def test_pictures_of_the_page(browser: Browser, address: str, screen: str, scheme: str) -> None:
    """Empty, ready to send and finished, on a phone and a desktop, by day and by night."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with window(browser, size=SIZES[screen], scheme=scheme, phone=screen == "phone") as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await expect(page.get_by_role("button", name="shapes three")).to_be_visible()
        await expect(page.locator("#service")).to_have_attribute("data-state", "ready")
        taken = [FOLDER / f"{screen}-{scheme}-{what}.png" for what in ("empty", "ready", "finished")]
        await page.screenshot(path=taken[0])
        await page.get_by_label("Choose a photo").set_input_files(SAMPLES / "photo-horizon-warm.jpg")
        await page.get_by_role("radio", name="Ansel").check()
        await page.screenshot(path=taken[1])
        await visitor.ask("Describe this image.", picture=None, advisor="Ansel")
        await visitor.until_finished()
        await page.mouse.move(0, 0)
        await page.screenshot(path=taken[2])
    assert all(path.stat().st_size > 10_000 for path in taken)
