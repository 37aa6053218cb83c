"""A line that breaks: a proxy before the gateway that cuts streams of events in the middle, a few times."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

_ASKS_FOR_EVENTS = re.compile(rb"^GET /v1/analyses/[^ ]+/events", re.MULTILINE)


@dataclass(slots=True)
class CuttingProxy:
    """A proxy: where it goes, how many streams it still cuts and after how many bytes, and how many it has cut."""

    target_port: int
    cuts_left: int
    after_bytes: int
    port: int = 0
    cuts: int = 0


class _Line:
    """One connection through the proxy."""

    def __init__(self, proxy: CuttingProxy) -> None:
        """Begin whole."""
        self._proxy = proxy
        self._left: int | None = None

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what both sides say, until one has gone or the line is cut."""
        upstream, to_upstream = await asyncio.open_connection("127.0.0.1", self._proxy.target_port)
        ways = (
            asyncio.create_task(self._pass_requests(reader, to_upstream)),
            asyncio.create_task(self._pass_answers(upstream, writer)),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            to_upstream.transport.abort()
            await asyncio.wait(ways)

    async def _pass_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._proxy.cuts_left and _ASKS_FOR_EVENTS.search(data):
                    self._proxy.cuts_left -= 1
                    self._left = self._proxy.after_bytes
                writer.write(data)
                await writer.drain()

    async def _pass_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data if self._left is None else data[: self._left])
                await writer.drain()
                if self._left is not None and len(data) > self._left:
                    self._proxy.cuts += 1
                    return
                if self._left is not None:
                    self._left -= len(data)


@contextlib.asynccontextmanager
async def cutting_proxy(target_port: int, *, cuts: int, after_bytes: int) -> AsyncGenerator[CuttingProxy]:
    """Run a proxy before a port of this machine; a cut stream ends with a piece of an event."""
    proxy = CuttingProxy(target_port, cuts, after_bytes)
    lines: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        lines.add(line)
        try:
            await _Line(proxy).carry(reader, writer)
        except asyncio.CancelledError:
            pass  # The end of the proxy.
        finally:
            # What was passed on arrives; then the line is gone, without the end of what it carried.
            writer.close()
            lines.discard(line)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for line in tuple(lines):
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
        await asyncio.sleep(0)  # Transports that were closed let go of their sockets.
