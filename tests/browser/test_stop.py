"""Stopping on the page: what it frees on the server, in every stage."""

from pathlib import Path

from playwright.async_api import Browser, expect

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import model_service_pb2 as model_pb
from tests.browser.chromium import window
from tests.browser.conftest import page_address
from tests.browser.visitor import Visitor
from tests.conditions import eventually
from tests.scripted_engine.program import Life, command
from tests.service.calls import Running, settings_for, started

ENDLESS = Life(tokens=100_000, step_s=0.02, context_tokens=200_000)


async def slots_in_use(running: Running) -> int:
    """Return how many analyses the model works on."""
    return (await running.models.ListModels(model_pb.ListModelsRequest())).models[0].slots_in_use


async def test_stop_frees_the_slot(browser: Browser, tmp_path: Path) -> None:
    """One press while the text is written: the slot is free, the text stays, and the analysis is cancelled."""
    settings = settings_for(tmp_path / "data", http_address="127.0.0.1:0", slots=1, default_max_tokens=50_000)
    engine = command([ENDLESS], tmp_path / "starts")
    async with started(settings, engine_command=engine) as running, window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(page_address(running))
        await visitor.ask("Go on.")
        await visitor.until_writing(10)
        assert await slots_in_use(running) == 1
        await page.get_by_role("button", name="Stop").click()
        await expect(page.locator("#message")).to_have_text("Stopped.")
        await eventually(lambda: running.held == (0, 0, 0, 0))
        assert await slots_in_use(running) == 0
        analysis = await running.get(visitor.name)
        assert analysis.state == pb.ANALYSIS_STATE_CANCELLED
        assert await visitor.text() == analysis.text
        await expect(page.get_by_role("button", name="Ask again")).to_be_visible()


async def test_stop_leaves_the_queue(browser: Browser, tmp_path: Path) -> None:
    """Who waits sees the place in the queue, and a stop leaves it; the one that runs goes on."""
    settings = settings_for(
        tmp_path / "data", http_address="127.0.0.1:0", slots=1, lookahead=0, default_max_tokens=50_000
    )
    async with started(settings, engine_command=command([ENDLESS], tmp_path / "starts")) as running:
        async with window(browser) as (first, _), window(browser) as (second, _):
            for page in (first, second):
                await page.goto(page_address(running))
                await Visitor(page=page).ask("Go on.", picture=None)
                await Visitor(page=page).until_named()
                if page is first:
                    await Visitor(page=page).until_writing()
            await expect(second.locator("#time-heading")).to_have_text("In the queue")
            await expect(second.locator("#time")).to_have_text("next")
            await second.get_by_role("button", name="Stop").click()
            await expect(second.locator("#message")).to_have_text("Stopped.")
            await eventually(lambda: running.held[:2] == (1, 0))
            await first.get_by_role("button", name="Stop").click()
            await expect(first.locator("#message")).to_have_text("Stopped.")
        await eventually(lambda: running.held == (0, 0, 0, 0))
