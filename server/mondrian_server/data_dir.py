"""The data directory: made for this service alone, writable, and locked against a second server."""

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from mondrian_server.errors import StartupError

LOCK_NAME = "lock"
_OWNER_ONLY = 0o700


class DataDir:
    """The folder of the service's own files, held from entering the context to leaving it."""

    def __init__(self, path: Path):
        """Use `path`, which need not exist yet."""
        self.path = path
        self._lock = FileLock(path / LOCK_NAME, mode=0o600)

    def __enter__(self) -> Self:
        """Make the folder, with access for its owner only, and lock it; raises StartupError in one line."""
        try:
            self.path.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise StartupError(f"data_dir: {self.path} is in use by another server") from error
        except OSError as error:
            raise StartupError(f"data_dir: {self.path} {_problem(error)}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlock the folder; it stays, and what is in it."""
        self._lock.release()


def is_held(path: Path) -> bool:
    """Return whether a server that runs holds the folder; a folder without a lock file is nobody's."""
    if not (path / LOCK_NAME).exists():
        return False
    lock = FileLock(path / LOCK_NAME, mode=0o600)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _problem(error: OSError) -> str:
    """Say what is wrong with a folder, in the words of the system."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "is not a folder"
    return f"is not writable: {os.strerror(error.errno) if error.errno else error}"
