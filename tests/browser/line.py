"""A line: a TCP connection's way to the service, which a test can cut and mend, and lead to another port."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class Line:
    """Forwards bytes both ways until it is cut. A connection that comes while it is cut is broken at once."""

    def __init__(self, target: int) -> None:
        """Lead to a port."""
        self.target = target
        self.port = 0
        self.is_cut = False
        self._cut_at = b""
        self._left = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._cut_event = asyncio.Event()

    @property
    def address(self) -> str:
        """The page's address at this end."""
        return f"http://127.0.0.1:{self.port}/"

    def cut(self) -> None:
        """Break all connections, and those to come."""
        self.is_cut = True
        self._cut_event.set()
        for writer in list(self._open):
            writer.transport.abort()

    def mend(self) -> None:
        """Let connections through again."""
        self.is_cut = False
        self._cut_event.clear()

    def cut_at(self, mark: bytes, times: int) -> None:
        """Cut as soon as the service has sent `mark` so many times, before what comes with the last of them."""
        self._cut_at, self._left = mark, times

    async def until_cut(self, *, within_s: float = 30.0) -> None:
        """Wait until it is cut."""
        await asyncio.wait_for(self._cut_event.wait(), within_s)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        if self.is_cut:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            ends = {writer, far_writer}
            self._open |= ends
            try:
                await asyncio.gather(self._forward(reader, far_writer, False), self._forward(far_reader, writer, True))
            finally:
                self._open -= ends
                far_writer.transport.abort()
        writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inwards: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(4096):
                if inwards and self._is_time(piece):
                    self.cut()
                    return
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    def _is_time(self, piece: bytes) -> bool:
        if not self._cut_at:
            return False
        self._left -= piece.count(self._cut_at)
        if self._left > 0:
            return False
        self._cut_at = b""
        return True


@contextlib.asynccontextmanager
async def line_to(target: int) -> AsyncGenerator[Line]:
    """Open a line to a port."""
    line = Line(target)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        line.cut()
