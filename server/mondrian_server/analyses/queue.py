"""The queue: first come, first served, with a share of the slots for each caller."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar


class HasCaller(Protocol):
    """Anything that somebody asked for."""

    @property
    def caller(self) -> str:
        """Who asked."""
        ...


Waiting = TypeVar("Waiting", bound=HasCaller)


class FairQueue(Generic[Waiting]):
    """Who comes next.

    The first in line whose caller holds less than its share of the slots comes next. The share is the number of slots
    divided among the callers that wait or run, rounded up. Where every waiting caller is at its share, the first in
    line comes next, so that no slot stays empty for fairness' sake.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._line: dict[int, Waiting] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._line)

    def __iter__(self) -> Iterator[Waiting]:
        """Iterate in order of arrival."""
        return iter(tuple(self._line.values()))

    def __contains__(self, item: Waiting) -> bool:
        """Return whether `item` waits."""
        return id(item) in self._line

    def push(self, item: Waiting) -> None:
        """Add to the end."""
        self._line[id(item)] = item

    def push_front(self, item: Waiting) -> None:
        """Put back at the head, as one that had its turn and lost it through no fault of its own."""
        self._line = {id(item): item, **self._line}

    def remove(self, item: Waiting) -> bool:
        """Take out, wherever it stands; return whether it was there."""
        return self._line.pop(id(item), None) is not None

    def peek(self, running: Mapping[str, int], slots: int) -> Waiting | None:
        """Return the next one, who stays in the line; None when nobody waits.

        Args:
            running: rows in work by caller.
            slots: the number of slots in all.

        """
        return next(self.order(running, slots), None)

    def order(self, running: Mapping[str, int], slots: int) -> Iterator[Waiting]:
        """Yield everybody in the order in which they would come if nothing ended and slots went on forever."""
        held = Counter(running)
        share = self._share(held, slots)
        at_share: list[Waiting] = []
        for item in tuple(self._line.values()):
            # One pass is enough: nobody's share grows on the way, so a caller that has reached it stays behind.
            if held[item.caller] < share:
                held[item.caller] += 1
                yield item
            else:
                at_share.append(item)
        yield from at_share

    def _share(self, held: Mapping[str, int], slots: int) -> int:
        callers = {item.caller for item in self._line.values()} | {
            caller for caller, count in held.items() if count > 0
        }
        return -(-slots // max(1, len(callers)))
