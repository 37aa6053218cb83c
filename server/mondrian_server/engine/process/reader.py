"""Reader: the thread that reads commands. The process ends when the channel closes."""

import logging
import os
import threading
from collections.abc import Callable

from mondrian_server.engine.protocol import Cancel, Configure, Submit, ToEngine
from mondrian_server.framing import BlockingChannel

_LOG = logging.getLogger(__name__)


class RowsHeld:
    """The rows that were submitted and are not yet closed."""

    def __init__(self):
        """Begin with none."""
        self._rows: set[int] = set()
        self._lock = threading.Lock()

    def add(self, row: int) -> None:
        """Hold a row."""
        with self._lock:
            self._rows.add(row)

    def discard(self, row: int) -> None:
        """Let go of a row that is closed."""
        with self._lock:
            self._rows.discard(row)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._rows)


def start_reading(
    channel: BlockingChannel[ToEngine],
    held: RowsHeld,
    command: Callable[[Submit | Cancel], None],
    prepare: Callable[[Submit], None],
) -> None:
    """Read commands for as long as the process lives: each goes to `command`, a submission to `prepare` as well."""

    def read() -> None:
        while (frame := channel.receive()) is not None:
            if isinstance(frame, Configure):
                _LOG.warning("a second Configure is ignored")
                continue
            if isinstance(frame, Submit):
                held.add(frame.row)
            command(frame)
            if isinstance(frame, Submit):
                prepare(frame)
        os._exit(0)  # The server is gone. The MLX thread may be in an operation that nothing else can end.

    threading.Thread(target=read, name="reader", daemon=True).start()
