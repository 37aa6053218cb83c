"""The door: turns calls away before their requests are received, when there is no room for what they ask for.

A request with photos takes milliseconds to receive and to parse, on the loop that everybody shares. While there is no
room, a few requests a second are received all the same: one that repeats a `request_id` needs no room, and only a
request that has been read shows it.
"""

import time
from collections.abc import Callable

from mondrian_server.errors import MondrianError

READ_PER_S = 20.0
"""How many requests a second are read while there is no room."""


class Door:
    """Decides which calls may send their requests."""

    def __init__(
        self,
        refusal: Callable[[], MondrianError | None],
        refuse: Callable[[MondrianError], None],
        *,
        read_per_s: float = READ_PER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nobody read; `refusal` gives the error that tells why there is no room, `refuse` raises it."""
        self._refusal = refusal
        self._refuse = refuse
        self._interval_s = 1.0 / read_per_s
        self._clock = clock
        self._next_at_s = clock()

    def enter(self) -> None:
        """Return if the request is to be received; raises the refusal if not."""
        error = self._refusal()
        if error is None:
            return
        now_s = self._clock()
        # Up to a second's worth may come at once.
        self._next_at_s = max(self._next_at_s, now_s - 1.0)
        if self._next_at_s > now_s:
            self._refuse(error)
        self._next_at_s += self._interval_s
