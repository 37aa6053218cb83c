"""Shutdown: a process with many open streams ends in time, and every client goes on with the next one."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.conditions import eventually
from tests.gateway.face import Face, Stream, facing, free_port
from tests.service.programs import Program, program

CLIENTS = 100
GRACE_S = 1.0
SLACK_S = 6.0
"""What an ending process and its children take besides, where a hundred clients and other work share two cores."""

CONFIG = {"prompt": "Describe it.", "sampling": {"maxTokens": 900, "minTokens": 900, "seed": 3}}


@pytest.mark.alone
async def test_sigterm_with_a_hundred_open_streams(tmp_path: Path) -> None:
    """The process ends within its grace, each stream says goodbye, and all go on after the restart without a loss."""
    http_port = free_port()
    arguments = ("--http-address", f"127.0.0.1:{http_port}", "--shutdown-grace-s", str(GRACE_S))
    streams = [Stream() for _ in range(CLIENTS)]
    async with facing(http_port) as face, asyncio.TaskGroup() as clients:
        async with program(tmp_path, *arguments) as first:
            names = [await face.create(CONFIG) for _ in range(4)]
            reading = [clients.create_task(follow(face, one, names[n % 4])) for n, one in enumerate(streams)]
            await eventually(lambda: all(stream.has_token() for stream in streams), within_s=60)
            began_s = time.monotonic()
            first.process.send_signal(signal.SIGTERM)
            assert await first.ended(within_s=30) == 0
            assert time.monotonic() - began_s < GRACE_S + SLACK_S
            assert not [line for line in first.log if line["level"] in ("error", "critical")]
        async with program(tmp_path, *arguments):
            async with asyncio.timeout(90):
                await asyncio.gather(*reading)
            for name in names:
                assert (await face.get(name))["state"] == "ANALYSIS_STATE_COMPLETED"
    for number, stream in enumerate(streams):
        stream.assert_whole()
        assert stream.text == streams[number % 4].text
        assert len(stream.statuses) > 1, "it was broken off"
        (farewell,) = stream.interruptions
        assert farewell["error"]["details"][0]["reason"] == "SHUTTING_DOWN"


async def follow(face: Face, stream: Stream, name: str) -> None:
    """Read an analysis to its end, as an EventSource does."""
    while not stream.ended:
        try:
            await face.read(stream, name)
        except httpx.TransportError:
            stream.statuses.append(0)
        if not stream.ended:
            await asyncio.sleep(0.3)


async def test_a_second_gateway_is_refused_the_port(tmp_path: Path) -> None:
    """Where something listens already, `serve` says so in one line that names the setting."""
    async with program(tmp_path, "--http-address", "127.0.0.1:0", ready=False) as first:
        taken = await http_port_of(first)
        (tmp_path / "second").mkdir()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mondrian_server", "serve", "--data-dir", str(tmp_path / "second")),
            *("--grpc-address", "127.0.0.1:0", "--http-address", f"127.0.0.1:{taken}"),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 1
        (line,) = [line for line in errors.decode().splitlines() if line.startswith("mondrian: ")]
        assert line.startswith(f"mondrian: http_address: cannot listen on 127.0.0.1:{taken}: ")


async def http_port_of(server: Program) -> int:
    """Return the port that a server's gateway listens on."""
    assert server.process.stdout is not None
    line = (await asyncio.wait_for(server.process.stdout.readline(), 20)).decode()
    return int(line.strip().rstrip("/").rpartition(":")[2])
