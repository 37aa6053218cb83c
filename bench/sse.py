"""SSE over HTTP/1.1, as lean as it can be: one connection for each stream, and the data of each event as bytes."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class HttpError(Exception):
    """The server refused."""


@contextlib.asynccontextmanager
async def posted(address: str, path: str, body: bytes, headers: str = "") -> AsyncGenerator[asyncio.StreamReader]:
    """Send a request and give the reader of its answer's body, which is chunked."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
    try:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer.split(b"\r\n", 1)[0]:
            raise HttpError(f"{answer.decode()[:200]} {(await reader.read(500)).decode(errors='replace')}")
        yield reader
    finally:
        writer.close()


async def events(reader: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    """Yield the data of each event of a chunked body."""
    rest = b""
    while size := int(await reader.readline(), 16):
        rest += await reader.readexactly(size)
        await reader.readexactly(2)
        rest = rest.replace(b"\r\n", b"\n")
        *whole, rest = rest.split(b"\n\n")
        for event in whole:
            for line in event.split(b"\n"):
                if line.startswith(b"data:"):
                    yield line[5:].strip()
