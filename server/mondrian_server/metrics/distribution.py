"""A distribution: counts of values by bucket, at a fraction of a microsecond for each value."""

import itertools
from bisect import bisect_left
from collections.abc import Sequence


class Distribution:
    """A histogram for what happens with every token: prometheus_client's own takes a lock for each value."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Begin with nothing counted; `bounds` are the inclusive upper ends of the buckets, in rising order."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """All values together."""

    def add(self, value: float, count: int = 1) -> None:
        """Count a value so many times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self.total += value * count

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bucket's upper end and how many values are not above it; the last one is `+Inf`."""
        ends = (*map(repr, self._bounds), "+Inf")
        return list(zip(ends, map(float, itertools.accumulate(self._counts)), strict=True))
