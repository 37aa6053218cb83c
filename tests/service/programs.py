"""Programs: `mondrian serve` as processes of their own, and whatever they might leave behind."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil

from tests.conditions import eventually
from tests.service.calls import Connection

SERVE = (sys.executable, "-m", "mondrian_server", "serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program(Connection):
    """A server process that listens, and a channel to it."""

    process: asyncio.subprocess.Process
    folder: Path
    port: int

    @property
    def errors(self) -> str:
        """What stands on stderr so far."""
        return (self.folder / "stderr").read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of the log so far."""
        return [json.loads(line) for line in self.errors.splitlines()]

    @property
    def family(self) -> list[psutil.Process]:
        """The server and its children."""
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    async def ended(self, *, within_s: float = 20.0) -> int:
        """Wait for the end and return the exit status."""
        return await asyncio.wait_for(self.process.wait(), within_s)


@contextlib.asynccontextmanager
async def program(folder: Path, *arguments: str, ready: bool = True, **environment: str) -> AsyncGenerator[Program]:
    """Run `mondrian serve` in a folder of its own and connect to it; at the end of the block nothing of it is left."""
    process = await start(folder, "--grpc-address", "127.0.0.1:0", *arguments, **environment)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert line.startswith("Listening on 127.0.0.1:"), (folder / "stderr").read_text()
        port = int(line.rpartition(":")[2])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            running = Program(process=process, folder=folder, port=port, channel=channel)
            if ready:
                await eventually(running.is_serving, within_s=60.0)
            yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        for one in left_of(folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


async def start(folder: Path, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """Start `mondrian serve` in a folder of its own, which marks it and its children."""
    with (folder / "stderr").open("wb") as errors:
        return await asyncio.create_subprocess_exec(
            *(*SERVE, "--data-dir", "data", "--http-address", "", *arguments),
            cwd=folder,
            env=os.environ | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )


def left_of(folder: Path) -> list[psutil.Process]:
    """Return the processes that run in a folder."""
    return [one for one in psutil.process_iter() if _runs_in(one, folder)]


def _runs_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder.resolve()
    except (psutil.Error, OSError):
        return False
