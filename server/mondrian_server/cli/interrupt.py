"""Ctrl-C while events come: it leaves the stream, and never tears what is being written."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def left_by_ctrl_c(events: Iterable[_T], leave: Callable[[], None]) -> Iterator[_T]:
    """Pass the events on; from the first one Ctrl-C calls `leave` in place of raising KeyboardInterrupt.

    The loop then ends by the stream's own error, between two events. Before the first one there is nothing to tear, and
    reading a file or connecting must be interrupted where it blocks. Where SIGINT is ignored, as in a background job of
    a shell, it stays so.
    """
    raising = signal.getsignal(signal.SIGINT)
    listens = raising is not signal.default_int_handler
    try:
        for event in events:
            if not listens:
                signal.signal(signal.SIGINT, _handler(leave))
                listens = True
            yield event
    finally:
        signal.signal(signal.SIGINT, raising)


def _handler(leave: Callable[[], None]) -> Callable[[int, object], None]:
    def handle(_number: int, _frame: object) -> None:
        # The handler runs between two steps of the main thread, which may hold the call's lock at that moment.
        threading.Thread(target=leave, name="leave").start()

    return handle
