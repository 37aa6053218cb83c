"""Usage: processor time and memory of a contender's processes, from outside."""

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_EVERY_S = 0.2


class Usage:
    """Watches a process and its children while the block runs. Processes of the bench itself are not among them."""

    def __init__(self, pid: int):
        """Prepare for a process."""
        self._root = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._cpu: dict[int, float] = {}
        self._before = 0.0
        self.cpu_s = 0.0
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        """Begin."""
        self._before = self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; the figures stand from now on."""
        self._ended.set()
        self._thread.join()
        self.cpu_s = self._look() - self._before

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._look()

    def _look(self) -> float:
        """Note the memory, and return the processor time of all processes that there are or were."""
        memory = 0
        for process in (self._root, *self._root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
                memory += _memory(process)
        self.peak_bytes = max(self.peak_bytes, memory)
        return sum(self._cpu.values())


def _memory(process: psutil.Process) -> int:
    """Return the memory of a process, what it shares counted by its share where the system tells."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    if rollup.exists():
        with contextlib.suppress(OSError):
            for line in rollup.read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    return process.memory_info().rss


def family(pid: int, name: str) -> psutil.Process:
    """Return the child of a process with a word in its command line."""
    for process in psutil.Process(pid).children(recursive=True):
        if name in " ".join(process.cmdline()):
            return process
    raise LookupError(f"process {pid} has no child {name}")
