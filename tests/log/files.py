"""What can happen to a log's file, and the children that tests write to one with."""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

_PAGE_BYTES = 4096
_REPOSITORY = Path(__file__).parents[2]


def overwrite(path: Path, start: int, count: int, byte: int = 0xFF) -> None:
    """Overwrite bytes of a file in place."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes([byte]) * count)


def replace_text(path: Path, old: bytes, new: bytes) -> None:
    """Overwrite a text that occurs in a file with another of its length."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder and what is in them."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def page_at(path: Path, share: float) -> int:
    """Return where the page begins that stands at a share of a file's length."""
    return int(path.stat().st_size * share) // _PAGE_BYTES * _PAGE_BYTES


def make_read_only(folder: Path) -> None:
    """Take the permission to write from a folder and its files."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)


def permissions(path: Path) -> int:
    """Return a file's permission bits."""
    return path.stat().st_mode & 0o777


@contextlib.contextmanager
def opened_by_hand(path: Path) -> Generator[sqlite3.Connection]:
    """Connect to a file that no log has open, and keep what is done to it."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection


@contextlib.contextmanager
def child(program: str, *arguments: str) -> Generator["subprocess.Popen[str]"]:
    """Run a program of `tests.log.programs` in a process of its own, and end it with the block."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_REPOSITORY), *filter(None, sys.path)])}
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.log.programs.{program}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_REPOSITORY,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def one_line(message: str) -> bool:
    """Whether a message is one line that an operator can read."""
    return "\n" not in message and re.match(r"log: /\S+ [a-z]", message) is not None
