"""Board: how many tokens each request of a run has, and who waits for that."""

import asyncio
import time

from bench.plan import Request, Run, Seen, When


class Board:
    """The state of one run, on one event loop."""

    def __init__(self, requests: int):
        """Begin the clock."""
        self.seen = [Seen() for _ in range(requests)]
        self.counts = [0] * requests
        self.killed_s = 0.0
        self._waiting: list[tuple[When, asyncio.Event]] = []
        self._began = time.perf_counter()

    def now_s(self) -> float:
        """Return the time since the beginning."""
        return time.perf_counter() - self._began

    def arrived(self, index: int, tokens: int) -> None:
        """Note tokens of a request."""
        self.seen[index].arrivals.append((self.now_s(), tokens))
        self.counts[index] += tokens
        if self._waiting:
            for moment, event in self._waiting:
                if self.is_past(moment):
                    event.set()

    def is_past(self, moment: When) -> bool:
        """Return whether a moment has come."""
        return all(self.counts[index] >= moment.tokens for index in moment.requests)

    async def reach(self, moment: When) -> None:
        """Wait for a moment."""
        event = asyncio.Event()
        entry = (moment, event)
        self._waiting.append(entry)
        if not self.is_past(moment):
            await event.wait()
        self._waiting.remove(entry)

    async def begin(self, index: int, request: Request) -> Seen:
        """Wait until a request is due, and note that it is sent."""
        if request.when is not None:
            await self.reach(request.when)
        if request.at_s:
            await asyncio.sleep(max(0.0, request.at_s - (0 if request.when else self.now_s())))
        self.seen[index].sent_s = self.now_s()
        return self.seen[index]

    def run(self) -> Run:
        """Return what was seen."""
        return Run(seen=self.seen, wall_s=self.now_s(), killed_s=self.killed_s)
