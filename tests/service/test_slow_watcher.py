"""A watcher on a line of a byte a second, among two hundred others."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import psutil

from mondrian.v1 import analysis_pb2 as pb
from tests.service.calls import Connection, settings_for, started

CONFIG = pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=500, min_tokens=500))
WATCHERS = 200
MOST_GROWTH_BYTES = 100 * 1024 * 1024


class Tap:
    """A proxy that lets a byte a second through to the client, until it is opened."""

    def __init__(self, port: int) -> None:
        """Lead to a server's port."""
        self._port = port
        self.opened = asyncio.Event()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncGenerator[int]:
        """Listen on a free port inside the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A small limit, so that what the client has not read stays with the server.
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port, limit=1024)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, to_server, slowly=False))
                group.create_task(self._copy(from_server, writer, slowly=True))
        finally:
            writer.close()
            to_server.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool) -> None:
        while data := await reader.read(1 if slowly and not self.opened.is_set() else 65_536):
            writer.write(data)
            await writer.drain()
            if slowly:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.opened.wait(), 1.0)
        writer.close()


async def test_a_watcher_of_a_byte_a_second_holds_up_nobody(tmp_path: Path) -> None:
    """Two hundred others get everything meanwhile, memory stays bounded, and the slow one gets it all in the end."""
    async with started(settings_for(tmp_path)) as up:
        tap = Tap(up.service.port)
        async with tap.listening() as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as slow_channel:
            name = (await up.create(CONFIG)).name
            before = psutil.Process().memory_info().rss
            slow = Connection(channel=slow_channel).watch(name)
            calls = [up.watch(name) for _ in range(WATCHERS)]
            outcomes = [await call.outcome() for call in calls]
            assert all(outcome.events == outcomes[0].events for outcome in outcomes)
            assert outcomes[0].completed.usage.output_tokens == 500
            assert not slow.ended
            assert psutil.Process().memory_info().rss - before < MOST_GROWTH_BYTES
            tap.opened.set()
            assert (await slow.outcome()).events == outcomes[0].events
