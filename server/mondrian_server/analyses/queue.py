"""The queue: first come, first served, with a share of the slots for each caller."""

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
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
    divided among the callers that wait or run, rounded up. Where every waiting caller is at its share, the first of
    those whose caller holds least comes next, so that no slot stays empty for fairness' sake. A caller that has as many
    rows as it may is passed over in any case.
    """

    def __init__(self, most_running: Callable[[str], int] = lambda _: 0) -> None:
        """Start empty; `most_running` gives the rows that a caller may have, 0: any number."""
        self._line: dict[int, Waiting] = {}
        self._most_running = most_running
        self._by_caller: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._line)

    @property
    def by_caller(self) -> Counter[str]:
        """How many wait by caller."""
        return self._by_caller

    def __iter__(self) -> Iterator[Waiting]:
        """Iterate in order of arrival."""
        return iter(tuple(self._line.values()))

    def __contains__(self, item: Waiting) -> bool:
        """Return whether `item` waits."""
        return id(item) in self._line

    def push(self, item: Waiting) -> None:
        """Add to the end."""
        self._line[id(item)] = item
        self._by_caller[item.caller] += 1

    def push_front(self, item: Waiting) -> None:
        """Put back at the head, as one that had its turn and lost it through no fault of its own."""
        self._line = {id(item): item, **self._line}
        self._by_caller[item.caller] += 1

    def remove(self, item: Waiting) -> bool:
        """Take out, wherever it stands; return whether it was there."""
        if self._line.pop(id(item), None) is None:
            return False
        self._by_caller[item.caller] -= 1
        if not self._by_caller[item.caller]:
            del self._by_caller[item.caller]
        return True

    def peek(self, running: Mapping[str, int], slots: int) -> Waiting | None:
        """Return the next one, who stays in the line; None when nobody waits, or nobody who may have one more row.

        Args:
            running: rows in work by caller.
            slots: the number of slots in all.

        """
        return next(self._runnable(Counter(running), slots, []), None)

    def order(self, running: Mapping[str, int], slots: int) -> Iterator[Waiting]:
        """Yield everybody in the order in which they would come if nothing ended and slots went on forever.

        Those whose callers may have no more rows come last.
        """
        at_limit: list[Waiting] = []
        yield from self._runnable(Counter(running), slots, at_limit)
        yield from at_limit

    def share(self, running: Mapping[str, int], slots: int) -> int:
        """Return how many slots each caller may hold while others wait."""
        callers = self._by_caller.keys() | {caller for caller, count in running.items() if count > 0}
        return -(-slots // max(1, len(callers)))

    def _runnable(self, held: Counter[str], slots: int, at_limit: list[Waiting]) -> Iterator[Waiting]:
        """Yield those who may have a row, and add the others to `at_limit`."""
        share = self.share(held, slots)
        most = {caller: self._most_running(caller) or math.inf for caller in self._by_caller}
        rest: dict[str, deque[tuple[int, Waiting]]] = {}
        for place, item in enumerate(tuple(self._line.values())):
            # One pass is enough: nobody's share grows on the way, so a caller that has reached it stays behind.
            if held[item.caller] < min(share, most[item.caller]):
                held[item.caller] += 1
                yield item
            else:
                rest.setdefault(item.caller, deque()).append((place, item))
        least = [(held[caller], items[0][0], caller) for caller, items in rest.items()]
        heapq.heapify(least)
        while least:
            count, _, caller = heapq.heappop(least)
            if count >= most[caller]:
                at_limit.extend(item for _, item in rest[caller])
                continue
            yield rest[caller].popleft()[1]
            if rest[caller]:
                heapq.heappush(least, (count + 1, rest[caller][0][0], caller))
