"""The data directory: whether it can be made and written, who holds it, what room it has, and the log in it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mondrian_server.data_dir import is_held
from mondrian_server.doctor.finding import Finding, ok, problem, warning
from mondrian_server.doctor.machine import in_bytes
from mondrian_server.errors import StartupError
from mondrian_server.log.sqlite import inspect_file

CHECK = "data directory"
_LEAST_BYTES = 100 * 2**20
_OTHER = "choose another one with --data-dir, or give this user access"


def find_folder(path: Path, log_name: str, wanted_bytes: int, *, server_runs: bool) -> Iterator[Finding]:
    """Yield how the folder stands, and the log in it; nothing is made, and nothing is left behind.

    Args:
        path: the folder, which need not exist.
        log_name: the log's file in it.
        wanted_bytes: how much the log may come to hold.
        server_runs: whether a server answers where one with these settings would.

    """
    try:
        there = path.exists()
    except OSError as error:  # A folder above it that this user may not enter.
        yield problem(CHECK, f"{path} cannot be reached: {error.strerror}", _OTHER)
        return
    if not there:
        yield _makeable(path)
    elif (fault := _unwritable(path)) is not None:
        yield problem(CHECK, f"{path} {fault}", _OTHER)
        return
    elif not is_held(path):
        yield ok(CHECK, f"{path} is writable, and free")
        yield _log(path / log_name)
    elif server_runs:
        yield ok(CHECK, f"{path} is held by the server that runs")
    else:
        text = f"{path} is held by a server that does not answer at this address"
        yield problem(CHECK, text, "end that server, or choose another folder with --data-dir")
    yield _room(_nearest(path), wanted_bytes)


def _makeable(path: Path) -> Finding:
    parent = _nearest(path)
    if not parent.is_dir() or not _is_writable(parent):
        return problem(CHECK, f"{path} does not exist and cannot be made in {parent}", _OTHER)
    return ok(CHECK, f"{path} does not exist yet, and is made at the start")


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest of its parents that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _unwritable(path: Path) -> str | None:
    """Return what keeps files from being made in a folder, or None."""
    if not path.is_dir():
        return "is not a folder"
    try:
        with tempfile.TemporaryFile(dir=path):
            return None
    except OSError as error:
        return f"is not writable: {error.strerror}"


def _log(file: Path) -> Finding:
    if not file.exists() and not file.with_name(f"{file.name}-wal").exists():
        return ok("log", "there is none yet")
    try:
        inspect_file(file)
    except StartupError as error:
        line = " ".join(str(error).split())
        return problem("log", line, "put the file back from a copy, or move it away to begin anew without its analyses")
    return ok("log", f"{file.name} is whole, {in_bytes(file.stat().st_size)}")


def _room(folder: Path, wanted_bytes: int) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{in_bytes(free)} free for a log of up to {in_bytes(wanted_bytes)}"
    if free < _LEAST_BYTES:
        return problem("disk", text, "free some space: without it, nothing can be kept and new analyses are refused")
    if free < wanted_bytes:
        return warning("disk", text, "free some space, or keep less with --retention-bytes")
    return ok("disk", text)
