"""The page and a standard EventSource over cut lines, restarts and reloads: nothing is lost, doubled or begun anew."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, Page, Route, expect

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.browser.chromium import window
from tests.browser.line import Line, line_to
from tests.browser.visitor import LONG_MS, Visitor, list_analyses
from tests.conditions import eventually
from tests.scripted_engine.program import Life, command
from tests.service.calls import Connection, Running, settings_for, started

SLOW = Life(tokens=100, step_s=0.05)
"""Five seconds of writing: time enough to act in the middle."""
SLOW_TEXT = "".join(f"t{number} " for number in range(1, 101))

LISTEN = """(address) => {
  const source = new EventSource(address);
  window.seen = { ids: [], text: "", opened: 0, last: "", source };
  source.onopen = () => { window.seen.opened += 1; };
  for (const kind of ["accepted", "progress", "token", "completed", "failed", "cancelled"]) {
    source.addEventListener(kind, (event) => {
      window.seen.ids.push(Number(event.lastEventId));
      window.seen.last = kind;
      if (kind === "token") window.seen.text += JSON.parse(event.data).token.text ?? "";
    });
  }
}"""


def gateway_port(running: Running) -> int:
    """Return the port of a service's gateway."""
    assert running.service.gateway is not None
    return running.service.gateway.port


@contextlib.asynccontextmanager
async def slow_service(folder: Path) -> AsyncGenerator[Running]:
    """Run a service that writes slowly, on what an earlier one in the folder has left."""
    settings = settings_for(folder / "data", http_address="127.0.0.1:0", shutdown_grace_s=0.0)
    async with started(settings, engine_command=command([SLOW], folder / "starts")) as running:
        yield running


@contextlib.asynccontextmanager
async def visited(browser: Browser, port: int) -> AsyncGenerator[tuple[Visitor, Line]]:
    """Open the page over a line."""
    async with line_to(port) as line, window(browser) as (page, _):
        await page.goto(line.address)
        yield Visitor(page=page), line


async def create(server: Connection) -> str:
    """Start an analysis and return its name."""
    return (await server.create(pb.AnalysisConfig(prompt="Go on."))).name


async def test_a_cut_line_and_a_restarted_server(browser: Browser, tmp_path: Path) -> None:
    """The line breaks in the middle and the server is started anew behind it: the page goes on where it was."""
    async with line_to(0) as line, window(browser) as (page, _):
        visitor = Visitor(page=page)
        async with slow_service(tmp_path) as first:
            line.target = gateway_port(first)
            await page.goto(line.address)
            await visitor.ask("Go on.")
            await visitor.until_writing(20)
            line.cut()
        before = await visitor.text()
        assert SLOW_TEXT.startswith(before)
        assert len(before) < len(SLOW_TEXT)
        await expect(page.locator("#result-notice")).to_contain_text("cannot be reached")
        async with slow_service(tmp_path) as second:
            line.target = gateway_port(second)
            line.mend()
            text = await visitor.until_finished()
            analysis = await second.get(visitor.name)
            assert text == analysis.text == SLOW_TEXT
            await expect(page.locator("#result-notice")).to_be_hidden()
            assert len(await list_analyses(second)) == 1


async def test_a_cut_between_two_tokens(browser: Browser, up: Running) -> None:
    """On the embedded model: the stream breaks between two tokens, and the text ends as the server has it."""
    async with visited(browser, gateway_port(up)) as (visitor, line):
        line.cut_at(b"event: token", 3)
        await visitor.ask("Describe this image in detail.")
        await line.until_cut()
        line.mend()
        text = await visitor.until_finished()
        assert text == (await up.get(visitor.name)).text
        assert len(text) > 300


async def test_the_device_goes_offline(browser: Browser, tmp_path: Path) -> None:
    """A device that loses its network says so, and goes on as soon as it is back."""
    async with slow_service(tmp_path) as running, visited(browser, gateway_port(running)) as (visitor, line):
        await visitor.ask("Go on.")
        await visitor.until_writing(20)
        await visitor.page.context.set_offline(True)
        line.cut()
        await expect(visitor.page.locator("#result-notice")).to_contain_text("offline")
        await expect(visitor.page.locator("#service")).to_contain_text("Offline")
        line.mend()
        await visitor.page.context.set_offline(False)
        assert await visitor.until_finished() == SLOW_TEXT


async def test_a_reload_goes_on(browser: Browser, tmp_path: Path) -> None:
    """A page that is loaded again in the middle shows the whole text, the question and the picture, and goes on."""
    async with slow_service(tmp_path) as running, visited(browser, gateway_port(running)) as (visitor, _):
        await visitor.ask("Go on.")
        await visitor.until_writing(20)
        await visitor.page.reload()
        await visitor.until_writing(20)
        await expect(visitor.page.get_by_role("heading", name="Go on.")).to_be_visible()
        await expect(visitor.page.get_by_role("img", name="The picture that was asked about")).to_be_visible()
        assert await visitor.until_finished() == SLOW_TEXT
        assert len(await list_analyses(running)) == 1


async def test_a_question_on_its_way_survives_a_reload(browser: Browser, up: Running) -> None:
    """The start arrived and its answer was lost; the page that is loaded again finds the same analysis."""
    blocked = asyncio.Event()

    async def block(route: Route) -> None:
        if route.request.method != "POST":
            await route.continue_()
            return
        await route.abort()
        blocked.set()

    before = len(await list_analyses(up))
    async with visited(browser, gateway_port(up)) as (visitor, line):
        line.cut_at(b"HTTP/1.1 201", 1)
        await visitor.ask("Which colour dominates?")
        await line.until_cut()
        await visitor.page.route(re.compile("/v1/analyses"), block)
        await asyncio.wait_for(blocked.wait(), 30)  # a try that had begun before could still pass the mended line
        line.mend()
        await expect(visitor.page.locator("#result-notice")).to_be_visible()
        assert len(await list_analyses(up)) == before + 1
        await visitor.page.unroute_all()
        await visitor.page.reload()
        assert "red" in await visitor.until_finished()
        await visitor.until_named()
    assert len(await list_analyses(up)) == before + 1


@pytest.mark.parametrize(("role", "name"), [("button", "Stop"), ("link", "Mondrian")])
async def test_a_question_on_its_way_can_be_stopped(
    browser: Browser, tmp_path: Path, role: Literal["button", "link"], name: str
) -> None:
    """A stop, or leaving, before the server has answered reaches an analysis that had begun all the same."""
    async with slow_service(tmp_path) as running, visited(browser, gateway_port(running)) as (visitor, line):
        line.cut_at(b"HTTP/1.1 201", 1)
        await visitor.ask("Go on.")
        await line.until_cut()
        await visitor.page.get_by_role(role, name=name, exact=True).click()
        await expect(visitor.page.locator("#message")).to_have_text("Stopped.")
        line.mend()
        await eventually(lambda: running.held == (0, 0, 0, 0))
        (analysis,) = await list_analyses(running)
        assert analysis.state == pb.ANALYSIS_STATE_CANCELLED


async def test_a_busy_server_is_waited_for(browser: Browser, tmp_path: Path) -> None:
    """A full queue is told with a countdown; when there is room, the question goes in by itself."""
    settings = settings_for(tmp_path / "data", http_address="127.0.0.1:0", slots=1, lookahead=0, max_waiting_analyses=1)
    slow = Life(tokens=2000, step_s=0.05, context_tokens=4000)
    async with started(settings, engine_command=command([slow], tmp_path / "starts")) as running:
        others = [await create(running)]
        await eventually(lambda: running.held[1] == 0)
        others.append(await create(running))
        async with visited(browser, gateway_port(running)) as (visitor, _):
            await visitor.ask("Go on.", picture=None)
            notice = visitor.page.locator("#result-notice")
            await expect(notice).to_contain_text("The server is busy. Trying again", timeout=LONG_MS)
            for name in others:
                await running.analyses.CancelAnalysis(service_pb.CancelAnalysisRequest(name=name))
            await notice.get_by_role("button", name="Try now").click()
            await visitor.until_writing()
            await expect(notice).to_be_hidden()
            await visitor.page.get_by_role("button", name="Stop").click()
            await expect(visitor.page.locator("#message")).to_have_text("Stopped.")


async def test_an_event_source_of_the_browser(browser: Browser, tmp_path: Path) -> None:
    """Chromium's own EventSource reads the stream, reconnects by itself, and loses and doubles nothing."""
    async with slow_service(tmp_path) as running, visited(browser, gateway_port(running)) as (visitor, line):
        name = await create(running)
        await visitor.page.evaluate(LISTEN, f"v1/{name}/events")
        for _ in range(2):
            line.cut_at(b"event: token", 8)
            await line.until_cut()
            line.mend()
        seen = await _closed(visitor.page)
        events = (await running.watched(name)).events
        assert seen["ids"] == [event.sequence for event in events]
        assert seen["text"] == "".join(event.token.text for event in events) == SLOW_TEXT
        assert seen["last"] == "completed"
        assert seen["opened"] >= 3


async def _closed(page: Page) -> dict[str, Any]:
    """Wait until the EventSource has been told that it is over, and return what it saw."""

    async def is_closed() -> bool:
        return await page.evaluate("() => window.seen.source.readyState === EventSource.CLOSED")

    await eventually(is_closed, within_s=60.0)
    return await page.evaluate("() => ({ ...window.seen, source: null })")
