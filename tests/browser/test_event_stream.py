"""The parser of event streams in `mondrian.js`, against the rules of the HTML standard."""

import base64
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.chromium import window
from tests.browser.scripted_gateway import scripted_gateway

PARSE = """async (pieces) => {
  const { EventStreamParser } = await import("/mondrian.js");
  const parser = new EventStreamParser();
  const messages = [];
  for (const piece of pieces) {
    messages.push(...parser.push(Uint8Array.from(atob(piece), (character) => character.charCodeAt(0))));
  }
  return { messages, retryMs: parser.retryMs };
}"""

MESSY = (
    "\ufeff: a comment\r\nid: 1\r\nevent: token\r\ndata: {\"text\":\r\ndata:  \"é漢🎨\"}\r\n\r\n"
    "data:no space\rdata\rdata: \r\r"
    "retry: 2000\nid: 2\nunknown: x\nevent: progress\ndata: a: b\n\n\n"
    "event: nothing\n\n"
    "retry: soon\ndata: last\n\n"
    "data: without an end"
)  # fmt: skip
EXPECTED = [
    {"id": "1", "event": "token", "data": '{"text":\n "é漢🎨"}'},
    {"id": "1", "event": "message", "data": "no space\n\n"},
    {"id": "2", "event": "progress", "data": "a: b"},
    {"id": "2", "event": "message", "data": "last"},
]


@pytest_asyncio.fixture(scope="module")
async def page(browser: Browser) -> AsyncGenerator[Page]:
    """An empty page that can import the client."""
    async with scripted_gateway() as gateway, window(browser) as (page, _):
        await page.goto(gateway.address)
        yield page


async def parsed(page: Page, *pieces: bytes) -> dict[str, Any]:
    """Return the messages of a stream that comes in pieces."""
    return await page.evaluate(PARSE, [base64.b64encode(piece).decode() for piece in pieces])


async def test_it_reads_every_form_of_a_stream(page: Page) -> None:
    """Byte order mark, CR, LF, CR LF, comments, several data lines, unknown fields, no data, no end."""
    assert await parsed(page, MESSY.encode()) == {"messages": EXPECTED, "retryMs": 2000}


async def test_cuts_change_nothing(page: Page) -> None:
    """A stream that comes byte by byte, through characters and line ends, gives the same messages."""
    stream = MESSY.encode()
    pieces = [stream[index : index + 1] for index in range(len(stream))]
    assert await parsed(page, *pieces) == {"messages": EXPECTED, "retryMs": 2000}


@pytest.mark.parametrize("size", [2, 3, 5, 7, 11])
async def test_pieces_of_any_size_change_nothing(page: Page, size: int) -> None:
    """Cuts at other places change nothing either."""
    stream = MESSY.encode()
    pieces = [stream[index : index + size] for index in range(0, len(stream), size)]
    assert (await parsed(page, *pieces))["messages"] == EXPECTED


async def test_an_id_with_a_null_is_ignored(page: Page) -> None:
    """The standard says so: such an id could not be sent back."""
    found = await parsed(page, b"id: 7\ndata: a\n\nid: 8\x00\ndata: b\n\n")
    assert [message["id"] for message in found["messages"]] == ["7", "7"]
