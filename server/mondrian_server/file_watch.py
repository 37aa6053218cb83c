"""File watches: notice that files were written or replaced, by looking at them once a second."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

LOOK_INTERVAL_S = 1.0

_Look: TypeAlias = "tuple[int, int, int, int] | None"


class FileWatch:
    """Remembers how some files looked."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Look at them now: before they are read, so that a change in between is noticed."""
        self._paths = tuple(paths)
        self._seen = self._look()

    async def changed(self) -> None:
        """Wait until one of them looks otherwise than at the last look."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            look = await asyncio.to_thread(self._look)
            if look != self._seen:
                self._seen = look
                return

    def _look(self) -> tuple[_Look, ...]:
        return tuple(_look_at(path) for path in self._paths)


def _look_at(path: Path) -> _Look:
    """Return what changes with a file: its times, that of its mode too, its size and which one it is; None: no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
