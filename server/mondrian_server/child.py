"""Child processes: started with one end of a socket pair, named in `ps`, ended for certain."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

CHANNEL_VARIABLE = "MONDRIAN_CHANNEL_FD"
"""The environment variable that tells a child which descriptor is its end."""


class Child:
    """A running child process and the server's end of its socket pair."""

    def __init__(self, process: asyncio.subprocess.Process, end: socket.socket):
        """Hold a process that `start` made."""
        self._process = process
        self.end = end

    @classmethod
    async def start(cls, command: Sequence[str]) -> "Child":
        """Start `command` in a process group of its own, so that a terminal's Ctrl-C reaches only the server.

        Not in a session of its own: Linux shares processors out among sessions first (autogroup), so that a busy engine
        would count as much as the server and all its callers on the machine together, and answers would wait for it.
        """
        ours, theirs = socket.socketpair()
        try:
            environment = os.environ | {CHANNEL_VARIABLE: str(theirs.fileno())}
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the end and return the exit status; negative: the signal that ended it."""
        return await self._process.wait()

    async def kill(self) -> int:
        """End the process at once, stopped ones too, and return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        return await self.wait()

    async def __aenter__(self) -> Self:
        """Return the child itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what still runs, and close our end if nobody took it over. A cancellation waits until that is done."""
        self.end.close()
        killing = asyncio.create_task(self.kill())
        try:
            await asyncio.shield(killing)
        finally:
            await killing


def python(module: str) -> tuple[str, ...]:
    """Return the command that runs `module` under this interpreter, and imports nothing from the working directory."""
    return (sys.executable, "-P", "-m", module)


def channel_socket() -> socket.socket:
    """Return this child's end of the socket pair, and let no terminal stop it for a line of its log (`stty tostop`).

    Raises KeyError in a process that `Child.start` did not make.
    """
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    return socket.socket(fileno=int(os.environ.pop(CHANNEL_VARIABLE)))


def count_oom_kills() -> int | None:
    """Return how many processes this machine's kernel has killed for want of memory; None where it does not tell.

    Linux counts them in /proc/vmstat since 4.13. Elsewhere a SIGKILL may have been for want of memory, or not.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None
