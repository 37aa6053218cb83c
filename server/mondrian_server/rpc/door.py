"""The door: turns calls away before their requests are received, when there is no room for what they ask for.

A request with photos takes milliseconds to receive and to parse, on the loop that everybody shares. While there is no
room, a few requests a second are received all the same: one that repeats a `request_id` needs no room, and only a
request that has been read shows it.
"""

import time
from collections import deque
from collections.abc import Callable

from mondrian_server.errors import MondrianError

READ_PER_S = 20.0
"""How many requests a second are read while there is no room."""

_WINDOW_S = 1.0


class Door:
    """Decides which calls may send their requests. For use on one event loop."""

    def __init__(
        self,
        refusal: Callable[[], MondrianError | None],
        refuse: Callable[[MondrianError], None],
        *,
        caller: Callable[[], str],
        shared: bool,
        read_per_s: float = READ_PER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nobody read.

        Args:
            refusal: gives the error that tells why there is no room, None where there is some.
            refuse: raises an error.
            caller: gives who makes the call.
            shared: whether there may be several callers. Then of each are read as many a second as it leaves for
                others: of one alone half, of two a third each. So nobody's repetitions keep another's out.
            read_per_s: how many are read in all while there is no room.
            clock: tells the time in seconds.

        """
        self._refusal = refusal
        self._refuse = refuse
        self._caller = caller
        self._shared = shared
        self._most = read_per_s * _WINDOW_S
        self._interval_s = 1.0 / read_per_s
        self._clock = clock
        self._next_at_s = clock()
        self._read: deque[tuple[float, str]] = deque()
        """When somebody was read within the last second, and who: at most `read_per_s` twice, and one."""

    def enter(self) -> None:
        """Return if the request is to be received; raises the refusal if not."""
        error = self._refusal()
        if error is None:
            return
        now_s = self._clock()
        while self._read and self._read[0][0] <= now_s - _WINDOW_S:
            self._read.popleft()
        # Up to a second's worth may come at once.
        self._next_at_s = max(self._next_at_s, now_s - _WINDOW_S)
        caller = self._caller()
        if self._next_at_s > now_s or not self._leaves_enough(caller):
            self._refuse(error)
        self._next_at_s += self._interval_s
        self._read.append((now_s, caller))

    def _leaves_enough(self, caller: str) -> bool:
        if not self._shared:
            return True
        own = sum(who == caller for _, who in self._read)
        return own < self._most - len(self._read)
