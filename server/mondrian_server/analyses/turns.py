"""Turns: one at a time, and the next is of the caller whose last turn is the longest ago."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class Turns:
    """A lock that many callers want. Those of one caller have it in the order in which they came."""

    def __init__(self) -> None:
        """Begin with nobody at it."""
        self._busy = False
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._last: dict[str, int] = {}
        self._count = 0

    @contextlib.asynccontextmanager
    async def turn(self, caller: str) -> AsyncGenerator[None]:
        """Run the block when it is the caller's turn."""
        if self._busy:
            await self._wait(caller)
        self._busy = True
        self._count += 1
        self._last[caller] = self._count
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, caller: str) -> None:
        entry = caller, asyncio.get_running_loop().create_future()
        self._waiting.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            if not entry[1].cancelled():  # It had been given the turn already.
                self._pass_on()
            raise
        finally:
            self._waiting.remove(entry)

    def _pass_on(self) -> None:
        waiting = [(caller, future) for caller, future in self._waiting if not future.done()]
        self._busy = bool(waiting)
        if not waiting:
            self._last.clear()
            return
        _, future = min(waiting, key=lambda entry: self._last.get(entry[0], 0))
        future.set_result(None)
