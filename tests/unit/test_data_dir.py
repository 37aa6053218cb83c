"""The data directory: private, writable, and one server's at a time."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from mondrian_server.data_dir import DataDir
from mondrian_server.errors import StartupError

NOBODY = 65_534
HOLD = """
import sys
from pathlib import Path
from mondrian_server.data_dir import DataDir
with DataDir(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def as_nobody() -> Generator[None]:
    """Act without root's power to write everywhere; anybody else acts as they are."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """The folder and its parents are made; nobody else may look into it."""
    path = tmp_path / "a" / "b"
    with DataDir(path) as held:
        assert held.path == path
        assert path.stat().st_mode & 0o777 == 0o700


def test_an_existing_folder_keeps_its_files(tmp_path: Path) -> None:
    """A second start finds what the first one left."""
    with DataDir(tmp_path):
        (tmp_path / "kept").write_text("x")
    with DataDir(tmp_path):
        assert (tmp_path / "kept").read_text() == "x"


def test_a_second_server_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    """One server holds the folder at a time, even where the first was killed without a chance to tidy up."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(StartupError, match=f"^data_dir: {tmp_path} is in use by another server$"),
            DataDir(tmp_path),
        ):
            pass
        first.kill()
    with DataDir(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The line names the setting, the folder and the reason."""
    path = tmp_path / "locked"
    path.mkdir(mode=0o500)
    expected = f"^data_dir: {path} is not writable: Permission denied$"
    with as_nobody(), pytest.raises(StartupError, match=expected), DataDir(path):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """So is one whose parent may not be written."""
    path = tmp_path / "locked"
    path.mkdir(mode=0o500)
    with as_nobody(), pytest.raises(StartupError, match=r"is not writable: Permission denied$"), DataDir(path / "data"):
        pass


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    """A file is not a folder, neither at the path nor on the way to it."""
    path = tmp_path / "file"
    path.write_text("x")
    for taken in (path, path / "data"):
        with pytest.raises(StartupError, match=f"^data_dir: {taken} is not a folder$"), DataDir(taken):
            pass
