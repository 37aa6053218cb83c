"""The page before a server with keys: it asks, says why, and keeps the key where it does not last."""

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import grpc
from playwright.async_api import Browser, Route, expect

from mondrian_server.callers import CallerLimits
from mondrian_server.callers.editing import add_key, revoke_keys
from tests.browser.chromium import window
from tests.browser.conftest import page_address
from tests.browser.visitor import LONG_MS, Visitor, list_analyses
from tests.conditions import eventually
from tests.service.calls import Connection, Running, settings_for, started

KEPT = "() => JSON.stringify([Object.entries(localStorage), document.cookie, location.href])"


def keys_of(folder: Path) -> Path:
    """Return where the key file of a test's service is."""
    return folder / "keys.toml"


def with_keys(folder: Path) -> AbstractAsyncContextManager[Running]:
    """Run a service that answers to the keys in its file only."""
    return started(settings_for(folder / "data", http_address="127.0.0.1:0", keys_file=keys_of(folder)))


async def is_refused(server: Connection) -> bool:
    """Tell whether the server refuses a caller."""
    try:
        await list_analyses(server)
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.PERMISSION_DENIED
    return False


async def test_a_key_is_asked_for_and_kept_in_the_tab(browser: Browser, tmp_path: Path) -> None:
    """Nothing is shown without a key; a wrong one is told apart; the right one opens the page, a reload included."""
    key = add_key(keys_of(tmp_path), "bob", CallerLimits()).text
    async with with_keys(tmp_path) as running, window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(page_address(running))
        dialog = page.get_by_role("dialog", name="API key")
        await dialog.get_by_label("Your key").fill("wrong")
        await dialog.get_by_role("button", name="Use this key").click()
        await expect(dialog).to_contain_text("does not know this key")
        await dialog.get_by_label("Your key").fill(key)
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_hidden()
        await visitor.ask("Which colour dominates?", advisor="Albers")
        assert "red" in await visitor.until_finished()
        assert [one.name for one in await list_analyses(running.by(key))] == [visitor.name]
        assert key not in await page.evaluate(KEPT)
        await page.reload()
        assert "red" in await visitor.until_finished()


async def test_what_is_typed_outlives_a_late_refusal(browser: Browser, tmp_path: Path) -> None:
    """A refusal that comes while the key is typed takes nothing away, and one that comes after it asks for nothing."""
    key = add_key(keys_of(tmp_path), "bob", CallerLimits()).text
    async with with_keys(tmp_path) as running, window(browser) as (page, _):
        typed, entered = asyncio.Event(), asyncio.Event()
        for path, moment in (("**/v1/advisors", typed), ("**/v1/analyses*", entered)):
            await page.route(path, partial(_answer_after, moment))
        async with page.expect_response("**/v1/advisors"):
            await page.goto(page_address(running))
            await page.evaluate("() => document.getElementById('key-open').click()")
            dialog = page.get_by_role("dialog", name="API key")
            await dialog.get_by_label("Your key").fill(key)
            typed.set()
        await expect(dialog).to_contain_text("answers to callers with a key")
        await expect(dialog.get_by_label("Your key")).to_have_value(key)
        async with page.expect_response(lambda answer: "/v1/analyses" in answer.url and answer.status == 401):
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("radio", name="Ansel")).to_be_attached(timeout=LONG_MS)
            entered.set()
        await expect(page.locator("#service-text")).to_have_text("mondrian-tiny", timeout=LONG_MS)
        await expect(dialog).to_be_hidden()


async def _answer_after(moment: asyncio.Event, route: Route) -> None:
    """Send a request on now and its answer later."""
    answer = await route.fetch()
    await moment.wait()
    await route.fulfill(response=answer)


async def test_without_a_key_nothing_is_sent(browser: Browser, tmp_path: Path) -> None:
    """Who leaves the question for a key unanswered is back at the own question, and can be asked again."""
    key = add_key(keys_of(tmp_path), "bob", CallerLimits()).text
    async with with_keys(tmp_path) as running, window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(page_address(running))
        dialog = page.get_by_role("dialog", name="API key")
        await dialog.get_by_role("button", name="Not now").click()
        await visitor.ask("Which colour dominates?")
        await expect(dialog).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Analyse")).to_be_visible()
        await page.get_by_role("button", name="API key").click()
        await dialog.get_by_label("Your key").fill(key)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("radio", name="Ansel")).to_be_attached()
        assert await list_analyses(running.by(key)) == []


async def test_a_revoked_key_is_asked_for_anew(browser: Browser, tmp_path: Path) -> None:
    """A key that was revoked leads to the same question, and the question that was asked goes in with the next key."""
    old, new = (add_key(keys_of(tmp_path), name, CallerLimits()).text for name in ("old", "new"))
    async with with_keys(tmp_path) as running, window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(page_address(running))
        dialog = page.get_by_role("dialog", name="API key")
        await dialog.get_by_label("Your key").fill(old)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("radio", name="Ansel")).to_be_attached()
        revoke_keys(keys_of(tmp_path), "old")
        await expect(dialog).to_be_hidden()
        await eventually(lambda: is_refused(running.by(old)))
        await visitor.ask("Which colour dominates?")
        await expect(dialog).to_contain_text("was revoked", timeout=LONG_MS)
        await dialog.get_by_label("Your key").fill(new)
        await page.keyboard.press("Enter")
        assert "red" in await visitor.until_finished()
