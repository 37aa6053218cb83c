"""Positions: tells those who wait how far they have come, at most once a second, and a few of them at a time."""

import asyncio
import math
from collections.abc import Callable, Iterable

from mondrian_server.analyses.analysis import Analysis

_INTERVAL_S = 1.0
"""How long after a change the positions are told, however fast the queue moves."""

_PARTS = 20
_FEWEST = 8
_SPREAD_S = 1.0
"""Each position that is told wakes whoever watches. Told all at once, those of a long queue would stop the loop for a
tenth of a second once a second, and with it every answer."""


class Positions:
    """The positions in the queue, as they are told. For use on one event loop."""

    def __init__(self, order: Callable[[], Iterable[Analysis]]) -> None:
        """Begin with nothing to tell; `order` gives those who wait, in the order in which they would get a slot."""
        self._order = order
        self._timer: asyncio.TimerHandle | None = None
        self._changed = False

    def changed(self) -> None:
        """Tell the new positions soon."""
        self._changed = True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._begin)

    def _begin(self) -> None:
        self._changed = False
        moved = [
            (analysis, position)
            for position, analysis in enumerate(self._order(), start=1)
            if position != analysis.tracker.queue_position
        ]
        self._tell(moved, max(_FEWEST, math.ceil(len(moved) / _PARTS)))

    def _tell(self, moved: list[tuple[Analysis, int]], count: int) -> None:
        """Tell the first `count`, and the others a moment later."""
        for analysis, position in moved[:count]:
            analysis.move(position)
        self._timer = None
        if len(moved) > count:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_SPREAD_S / _PARTS, self._tell, moved[count:], count)
        elif self._changed:
            self.changed()
