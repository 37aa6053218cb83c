"""`make run`: a first analysis as proof, a service that goes on, and a clean end."""

import asyncio
import re
import shutil
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.cli.programs import Terminal, terminal

ROOT = Path(__file__).parents[2]
CTRL_C = b"\x03"


@pytest.fixture
def make_run(tmp_path: Path) -> tuple[str, ...]:
    """The command `make run`, in an environment that is ready."""
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"run:\n\t@exec {sys.executable} {ROOT / 'scripts' / 'run.py'}\n", encoding="utf-8")
    make = shutil.which("make")
    assert make is not None
    return (make, "-f", str(makefile), "run")


def on_terminal(command: Sequence[str], address: str, folder: Path) -> AbstractAsyncContextManager[Terminal]:
    """Run a command on a terminal, with a service that listens on `address`."""
    return terminal(
        (),
        command=command,
        columns=100,
        MONDRIAN_GRPC_ADDRESS=address,
        MONDRIAN_HTTP_ADDRESS="127.0.0.1:0",
        MONDRIAN_DATA_DIR=str(folder / "data"),
    )


async def test_it_proves_itself_serves_on_and_ends_well_by_ctrl_c(make_run: tuple[str, ...], tmp_path: Path) -> None:
    """The analysis streams to the terminal, the address is told, and Ctrl-C is no error for make."""
    async with on_terminal(make_run, "127.0.0.1:0", tmp_path) as shown:
        await shown.sees("Listening on 127.0.0.1:")
        await shown.sees("tokens/s")
        await shown.sees("Ctrl-C ends it.")
        address = re.search(r"Mondrian serves on (\S+):(\d+)", shown.screen.text)
        assert address is not None
        _, writer = await asyncio.open_connection(address[1], int(address[2]))
        writer.close()
        shown.type(CTRL_C)
        assert await shown.end() == 0
        assert "Traceback" not in shown.screen.text
        assert "***" not in shown.screen.text, "make calls it an error"


async def test_a_signal_to_make_ends_the_service(make_run: tuple[str, ...], tmp_path: Path) -> None:
    """SIGTERM to make reaches the service, which leaves nothing behind."""
    async with on_terminal(make_run, "127.0.0.1:0", tmp_path) as shown:
        await shown.sees("Listening on 127.0.0.1:")
        assert shown.process is not None
        shown.process.terminate()
        # The terminal closes when the last program on it has ended.
        assert await shown.end() != 0
        assert "Traceback" not in shown.screen.text


async def test_a_taken_port_is_told_in_one_line(make_run: tuple[str, ...], tmp_path: Path) -> None:
    """Where something listens already, `make run` says so and fails."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with on_terminal(make_run, address, tmp_path) as shown:
            assert await shown.end() != 0
            said = [line for line in shown.screen.lines if line and "***" not in line]
            assert len(said) == 1
            assert address in said[0]
