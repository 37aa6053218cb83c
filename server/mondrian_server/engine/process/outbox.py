"""Outbox: the one way out of the engine process, shared by its threads."""

import threading

import msgspec

from mondrian_server.engine.protocol import ToEngine
from mondrian_server.framing import BlockingChannel


class Outbox:
    """Sends frames under a lock."""

    def __init__(self, channel: BlockingChannel[ToEngine]):
        """Send over `channel`."""
        self._channel = channel
        self._lock = threading.Lock()

    def send(self, frame: msgspec.Struct) -> None:
        """Send a frame. A server that is gone is not this method's concern: the reader ends the process."""
        try:
            with self._lock:
                self._channel.send(frame)
        except OSError:
            return
