"""Resources: what is too slow to ask for in a scrape: memory and time of the processes, the size of the log."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil
import structlog

from mondrian_server.errors import LogUnavailable
from mondrian_server.log.interface import EventLog, Size

TICK_S = 0.5
"""How often the lateness of the event loop is measured."""

TICKS = 10
"""So many ticks after the last look at the processes and the log comes the next."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """What a process uses: memory in RAM, and the processor's time since its start."""

    resident_bytes: int
    cpu_s: float


class Resources:
    """Looks at the processes and the log every few seconds, beside the loop; a scrape gets what was seen last."""

    def __init__(
        self, log: EventLog, pids: Callable[[], Mapping[str, int | None]], on_lag: Callable[[float], None]
    ) -> None:
        """Prepare; `run` looks.

        Args:
            log: whose size is wanted.
            pids: returns the process ids by the processes' names; None: there is none now.
            on_lag: told on the loop how many seconds late it woke up.

        """
        self._log = log
        self._pids = pids
        self._on_lag = on_lag
        self.processes: Mapping[str, ProcessUse] = {}
        self.log_size = Size()

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._look()
            for _ in range(TICKS):
                due_at = loop.time() + TICK_S
                await asyncio.sleep(TICK_S)
                self._on_lag(max(0.0, loop.time() - due_at))

    async def _look(self) -> None:
        try:
            self.processes = await asyncio.to_thread(_uses, self._pids())
            self.log_size = await self._log.size()
        except LogUnavailable:
            pass  # What was seen last stays; that the log is unavailable is a metric of its own.
        except Exception:
            _log.exception("resources could not be measured")


def _uses(pids: Mapping[str, int | None]) -> Mapping[str, ProcessUse]:
    found = {name: _use(pid) for name, pid in pids.items() if pid is not None}
    return {name: use for name, use in found.items() if use is not None}


def _use(pid: int) -> ProcessUse | None:
    """Return what a process uses; None where it is gone, or the platform does not tell."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return ProcessUse(resident_bytes=process.memory_info().rss, cpu_s=times.user + times.system)
    except psutil.Error:
        return None
