"""Many clients: what each of them costs, and that their heartbeats are on time."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from tests.conditions import eventually
from tests.gateway.face import Face, facing, free_port
from tests.scripted_engine import Life, command
from tests.service.calls import settings_for, started
from tests.service.programs import program

pytestmark = pytest.mark.alone

INTERVAL_S = 2.0
MOST_BYTES_EACH = 150_000
"""What an idle client may cost the server's process, both of its faces together; about 110 kB were measured."""


class Idle:
    """Clients that follow one analysis that is silent but for its heartbeats, read as raw bytes.

    `late_s` holds, for each client, how long after the server's recording each heartbeat came.
    """

    def __init__(self) -> None:
        self.late_s: list[list[float]] = []

    def has(self, count: int, *, beats: int) -> bool:
        """Whether there are so many clients, each with so many heartbeats."""
        return len(self.late_s) == count and all(len(one) >= beats for one in self.late_s)

    def forget(self) -> None:
        """Forget the heartbeats so far, of which the first ones were before their clients."""
        for one in self.late_s:
            one.clear()

    async def read(self, port: int, name: str) -> None:
        """Follow until the connection ends, and note when progress came."""
        mine: list[float] = []
        self.late_s.append(mine)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /v1/{name}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        try:
            while line := await reader.readline():
                if line == b"event: progress\n":
                    event = json.loads((await reader.readline()).removeprefix(b"data: "))
                    mine.append(time.time() - datetime.fromisoformat(event["createTime"]).timestamp())
        finally:
            writer.close()


@asynccontextmanager
async def idle_clients(face: Face, port: int, count: int) -> AsyncGenerator[Idle]:
    """Let clients follow a silent analysis inside the block."""
    delivery = {"progressInterval": f"{INTERVAL_S:g}s", "tokenInterval": "60s"}
    name = await face.create({"prompt": "x", "sampling": {"maxTokens": 4000}, "delivery": delivery})
    idle = Idle()
    clients = [asyncio.create_task(idle.read(port, name)) for _ in range(count)]
    try:
        yield idle
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await face.http.post(f"/v1/{name}:cancel")


async def test_idle_clients_hear_every_heartbeat(tmp_path: Path) -> None:
    """Two hundred clients hear of each beat, and no thread comes with them."""
    life = Life(tokens=100_000, step_s=0.05)
    settings = settings_for(tmp_path, http_address="127.0.0.1:0")
    async with started(settings, engine_command=command([life], tmp_path / "starts")) as up:
        assert up.service.gateway is not None
        port = up.service.gateway.port
        async with facing(port) as face:
            await face.http.get("/v1/models")
            threads = psutil.Process().num_threads()
            async with idle_clients(face, port, 200) as idle:
                await eventually(lambda: idle.has(200, beats=1), within_s=60)
                idle.forget()
                await eventually(lambda: idle.has(200, beats=3), within_s=60)
                assert psutil.Process().num_threads() <= threads + 2
            await eventually(lambda: up.service.gateway is not None and len(up.service.gateway.streams) == 0)


@pytest.mark.soak
async def test_what_five_hundred_idle_clients_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory for each client is bounded and reported, threads do not grow, and heartbeats come on time."""
    port = free_port()
    one_at_a_time = ("--slots", "1", "--lookahead", "0", "--http-address", f"127.0.0.1:{port}")
    async with program(tmp_path, *one_at_a_time) as server, facing(port) as face:
        # The clients follow analyses that wait behind these.
        for _ in range(20):
            await face.create({"prompt": "x", "sampling": {"minTokens": 4000, "maxTokens": 4000}})
        process = psutil.Process(server.process.pid)
        async with idle_clients(face, port, 20) as warm:
            await eventually(lambda: warm.has(20, beats=4), within_s=60)
        before, threads = process.memory_info().rss, process.num_threads()
        async with idle_clients(face, port, 500) as idle:
            await eventually(lambda: idle.has(500, beats=1), within_s=60)
            idle.forget()
            await eventually(lambda: idle.has(500, beats=5), within_s=60)
            each_bytes = (process.memory_info().rss - before) / 500
            late_s = [late_s for one in idle.late_s for late_s in one]
            with capsys.disabled():
                sys.stdout.write(
                    f"\n500 idle clients: {each_bytes / 1000:.0f} kB each, {threads} threads before and "
                    f"{process.num_threads()} with them, heartbeats {statistics.median(late_s) * 1000:.0f} ms late in "
                    f"the median and {max(late_s) * 1000:.0f} ms at most\n"
                )
            assert each_bytes < MOST_BYTES_EACH
            assert process.num_threads() <= threads + 2
            assert statistics.median(late_s) < INTERVAL_S
