"""Runs `mondrian` as a program, with pipes or on a pseudo-terminal."""

import asyncio
import fcntl
import os
import struct
import sys
import termios
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from mondrian_server.cli import main
from tests.cli.terminal import Screen

MONDRIAN = (sys.executable, "-m", "mondrian_server")
DEADLINE_S = 20
PIPE = asyncio.subprocess.PIPE

# Makes the terminal on stderr the controlling one, so that Ctrl-C reaches the program as it does in a shell.
_ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended."""

    status: int
    out: str
    err: str


def environment(**extra: str) -> dict[str, str]:
    """Return an environment in which nothing changes how the output looks."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "HF_HUB_OFFLINE", "PYTHONPATH") if name in os.environ}
    return {**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONWARNINGS": "error", **extra}


async def start(*arguments: str, stdin: int | None = None, **extra: str) -> asyncio.subprocess.Process:
    """Start the program with pipes for its output."""
    return await asyncio.create_subprocess_exec(
        *MONDRIAN, *arguments, stdin=stdin, stdout=PIPE, stderr=PIPE, env=environment(**extra)
    )


async def finish(process: asyncio.subprocess.Process, given: bytes | None = None) -> Ended:
    """Wait for the end of the program."""
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate(given)
    assert process.returncode is not None
    return Ended(status=process.returncode, out=out.decode(), err=err.decode())


async def run(*arguments: str, given: bytes | None = None, **extra: str) -> Ended:
    """Run the program to its end."""
    return await finish(await start(*arguments, stdin=PIPE if given is not None else None, **extra), given)


async def run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """Run a command in a thread of this process, which is sooner done; for those that take no signals."""
    status = await asyncio.to_thread(main.run, arguments)
    out, err = capsys.readouterr()
    return Ended(status=status, out=out, err=err)


class Terminal:
    """A program on a pseudo-terminal, and what stands on its screen."""

    def __init__(self, master: int, columns: int) -> None:
        self.screen = Screen(columns)
        self.process: asyncio.subprocess.Process | None = None
        self._master = master
        self._news = asyncio.Event()
        self._closed = asyncio.Event()

    def take(self) -> None:
        """Read what the program wrote."""
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says EIO when the last program has left the terminal
            data = b""
        if data:
            self.screen.feed(data)
        else:
            asyncio.get_running_loop().remove_reader(self._master)
            self._closed.set()
        self._news.set()

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    async def sees(self, text: str) -> None:
        """Wait until the text stands on the screen."""
        async with asyncio.timeout(DEADLINE_S):
            while text not in self.screen.text:
                assert not self._closed.is_set(), f"{text!r} never came:\n{self.screen.text}"
                self._news.clear()
                await self._news.wait()

    async def end(self) -> int:
        """Wait for the end of the program, and return its exit status."""
        assert self.process is not None
        async with asyncio.timeout(DEADLINE_S):
            status = await self.process.wait()
            await self._closed.wait()
        return status


@asynccontextmanager
async def terminal(
    arguments: Sequence[str],
    *,
    command: Sequence[str] = MONDRIAN,
    columns: int = 80,
    stdout: int | None = None,
    **extra: str,
) -> AsyncGenerator[Terminal]:
    """Run the program, or another command, on a terminal of its own; `stdout` sends its output elsewhere."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = Terminal(master, columns)
    asyncio.get_running_loop().add_reader(master, shown.take)
    try:
        shown.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _ON_TERMINAL, *command, *arguments),
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env=environment(**extra),
            start_new_session=True,
        )
        os.close(slave)
        yield shown
    finally:
        if shown.process is not None and shown.process.returncode is None:
            shown.process.kill()
            await shown.process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)
