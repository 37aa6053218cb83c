"""Beat: signs of life, sent by a thread of its own, that name the running operation."""

import contextlib
import threading
import time
from collections.abc import Generator, Sized

from mondrian_server.engine.process.outbox import Outbox
from mondrian_server.engine.protocol import IDLE, Beat


class Operations:
    """Which operation the MLX thread is in, and since when."""

    def __init__(self):
        """Begin idle."""
        self._running = (IDLE, time.monotonic())

    @contextlib.contextmanager
    def running(self, name: str) -> Generator[None]:
        """Name the operation that the block runs."""
        before = self._running
        self._running = (name, time.monotonic())
        try:
            yield
        finally:
            self._running = (before[0], time.monotonic())

    def current(self) -> tuple[str, float]:
        """Return the operation's name and how long it has run, in seconds."""
        name, since = self._running  # One reference is read: name and time belong together without a lock.
        return name, time.monotonic() - since


def start_beating(outbox: Outbox, operations: Operations, rows_held: Sized, interval_s: float) -> None:
    """Send a `Beat` every `interval_s` seconds for as long as the process lives."""

    def beat() -> None:
        while True:
            name, running_s = operations.current()
            outbox.send(Beat(operation=name, operation_s=running_s, rows_held=len(rows_held)))
            time.sleep(interval_s)

    threading.Thread(target=beat, name="beat", daemon=True).start()
