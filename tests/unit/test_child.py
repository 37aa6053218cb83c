"""Child processes: they get their channel, and nothing of them is left."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from mondrian_server.child import Child, python

ECHO = "import socket, os; s = socket.socket(fileno=int(os.environ['MONDRIAN_CHANNEL_FD'])); s.sendall(s.recv(100))"
SLEEP = "import time; time.sleep(600)"


async def test_a_child_finds_its_end_of_the_socket_pair() -> None:
    """What we send on our end comes back from the child's."""
    async with await Child.start((sys.executable, "-c", ECHO)) as child:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(child.end, b"hello")
        assert await asyncio.wait_for(loop.sock_recv(child.end, 100), 20) == b"hello"
        assert await child.wait() == 0


async def test_a_child_is_out_of_reach_of_ctrl_c_and_shares_the_servers_session() -> None:
    """It has a process group of its own, but no session: Linux shares processors out among sessions first."""
    async with await Child.start((sys.executable, "-c", SLEEP)) as child:
        assert os.getpgid(child.pid) == child.pid
        assert os.getsid(child.pid) == os.getsid(0)


async def test_the_end_of_the_block_kills_the_child_and_closes_our_end() -> None:
    """Neither process nor descriptor outlives the block."""
    async with await Child.start((sys.executable, "-c", SLEEP)) as child:
        pid = child.pid
    assert not psutil.pid_exists(pid)
    assert child.end.fileno() == -1


async def test_a_stopped_child_is_killed_too() -> None:
    """SIGSTOP does not save a child; its exit status names the signal that ended it."""
    async with await Child.start((sys.executable, "-c", SLEEP)) as child:
        os.kill(child.pid, signal.SIGSTOP)
        assert await asyncio.wait_for(child.kill(), 10) == -signal.SIGKILL
        assert await child.kill() == -signal.SIGKILL


async def test_a_cancelled_block_leaves_no_zombie() -> None:
    """Cancelling while the child is being killed waits until it is gone."""
    running = asyncio.Event()
    pids: list[int] = []

    async def work() -> None:
        async with await Child.start((sys.executable, "-c", SLEEP)) as child:
            pids.append(child.pid)
            running.set()

    task = asyncio.create_task(work())
    await running.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert not psutil.pid_exists(pids[0])


async def test_a_program_that_does_not_exist_leaves_no_descriptor(tmp_path: Path) -> None:
    """A start that fails closes both ends of the pair."""
    before = psutil.Process().num_fds()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            await Child.start((str(tmp_path / "missing"),))
    assert psutil.Process().num_fds() <= before


async def test_a_module_is_not_looked_for_in_the_working_directory(tmp_path: Path) -> None:
    """A file of an operator's folder that is called like one of our imports is not run."""
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text("raise SystemExit(99)\n")
    (tmp_path / "json" / "tool.py").write_text("raise SystemExit(99)\n")
    process = await asyncio.create_subprocess_exec(
        *python("json.tool"), cwd=tmp_path, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    await process.communicate(b"{}")
    assert process.returncode == 0
