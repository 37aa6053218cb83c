"""Signals: SIGTERM and Ctrl-C ask a process to end, and a second one makes it."""

import asyncio
import signal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_signal() -> asyncio.Event:
    """Return what SIGTERM and SIGINT set from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    return stop


def let_signals_end_the_process() -> None:
    """Make a second signal end the process at once."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
