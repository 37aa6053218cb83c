"""Observing: what happens to analyses, told to whoever counts it."""

from mondrian_server.errors import MondrianError
from mondrian_server.events import Terminal


class Observer:
    """Hears what happens to analyses, on the event loop. This one takes no notice; one that counts overrides it.

    Calls must not block or raise. `tokens` comes for each row in each step of the engine: it must cost next to nothing.
    """

    def accepted(self) -> None:
        """Hear that a new analysis was taken on; a repeated `request_id` is none."""

    def refused(self, error: MondrianError) -> None:
        """Hear that there was no room for a new one, or that the service was in no state to take it on."""

    def started(self, queue_s: float) -> None:
        """Hear that one got its slot, so many seconds after its acceptance; once in its life."""

    def first_token(self, after_s: float, count: int) -> None:
        """Hear that one got its first token, so many seconds after its acceptance, and how many came with it."""

    def tokens(self, gap_s: float, count: int) -> None:
        """Hear that further tokens came, so many seconds after those before them."""

    def continued(self) -> None:
        """Hear that one was interrupted, by the loss of the engine or of the server, and goes on."""

    def ended(self, terminal: Terminal) -> None:
        """Hear of an end."""


UNOBSERVED = Observer()
"""Where nobody counts."""
