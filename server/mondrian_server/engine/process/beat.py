"""Beat: signs of life, sent by a thread of its own, that name the running operation."""

import contextlib
import threading
import time
from collections.abc import Generator, Sized

from mondrian_server.engine.process.outbox import Outbox
from mondrian_server.engine.protocol import IDLE, Beat


class Operations:
    """Which operations the threads that compute are in, and since when."""

    def __init__(self):
        """Begin idle."""
        self._running: dict[int, tuple[str, float]] = {}
        self._idle_since = time.monotonic()

    @contextlib.contextmanager
    def running(self, name: str) -> Generator[None]:
        """Name the operation that the block runs on this thread."""
        thread = threading.get_ident()
        before = self._running.get(thread)
        self._running[thread] = (name, time.monotonic())
        try:
            yield
        finally:
            self._idle_since = time.monotonic()
            if before is None:
                del self._running[thread]
            else:
                self._running[thread] = (before[0], self._idle_since)

    def current(self) -> tuple[str, float]:
        """Return the name of the operation that has run longest, and for how many seconds; IDLE only if all are."""
        running = tuple(self._running.values())
        busy = [one for one in running if one[0] != IDLE]
        name, since = min(busy or running or ((IDLE, self._idle_since),), key=lambda one: one[1])
        return name, time.monotonic() - since


def start_beating(outbox: Outbox, operations: Operations, rows_held: Sized, interval_s: float) -> None:
    """Send a `Beat` every `interval_s` seconds for as long as the process lives."""

    def beat() -> None:
        while True:
            name, running_s = operations.current()
            outbox.send(Beat(operation=name, operation_s=running_s, rows_held=len(rows_held)))
            time.sleep(interval_s)

    threading.Thread(target=beat, name="beat", daemon=True).start()
