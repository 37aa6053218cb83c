"""Reception: receives the one request of each call, a bounded number at once, and none for longer than it may take.

What is not being read stays with its caller by gRPC's flow control, all but 64 KiB. So the places bound the memory of
requests that nobody has looked at yet, and the limit of time gives back the place of a call that sends nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from mondrian_server.errors import DeadlineExceeded, TooManyRequests

Context = grpc.aio.ServicerContext[Any, Any]

RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceptionLimits:
    """How long receiving one request may take, and how many are received at once.

    shared: whether there may be several callers. Then each may have as many places as it leaves free: one alone half of
    them, two a third each. So nobody who sends slowly takes the places of others.
    """

    limit_s: float = 60.0
    places: int = 64
    shared: bool = False


def _nobody(_: Context) -> str:
    return ""


def _stand_open() -> None:
    """Let every call in."""


class Reception:
    """Receives requests. For use on one event loop."""

    def __init__(
        self,
        limits: ReceptionLimits | None = None,
        *,
        caller: Callable[[Context], str] = _nobody,
        enter: Callable[[], None] = _stand_open,
    ) -> None:
        """Begin with nobody there.

        Args:
            limits: the bounds.
            caller: gives who makes a call, or whoever else is to have a share of the places.
            enter: raises the error with which a call is refused before its request is received.

        """
        self._limits = limits or ReceptionLimits()
        self._caller = caller
        self._enter = enter
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}

    @property
    def held(self) -> int:
        """How many places are taken."""
        return self._held.total()

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return sum(map(len, self._waiting.values()))

    async def receive(self, context: Context) -> object:
        """Return what the call sent.

        Raises:
            DeadlineExceeded: it did not come whole in time.
            TooManyRequests: others took all places for as long.
            MondrianError: what `enter` raises.

        """
        self._enter()
        caller = self._caller(context)
        if caller not in self._waiting and self._has_place_for(caller):
            self._held[caller] += 1
        else:
            await self._wait(caller)
            try:
                self._enter()  # There may be no room any more.
            except BaseException:
                self._leave(caller)
                raise
        return await self._read(context, caller)

    async def _read(self, context: Context, caller: str) -> object:
        """Return what comes; the place is given back when gRPC has let go of it, also after its caller has gone."""
        # grpc's core writes into what a read has set up until the call ends, so the read itself is never cancelled.
        read = asyncio.ensure_future(context.read())
        read.add_done_callback(lambda done: self._received(done, caller))
        await asyncio.wait((read,), timeout=self._limits.limit_s)
        if not read.done():
            raise DeadlineExceeded(f"the request had not come whole after {self._limits.limit_s:g} s")
        return read.result()

    def _received(self, read: "asyncio.Future[object]", caller: str) -> None:
        self._leave(caller)
        if not read.cancelled():
            read.exception()  # Nobody may be there any more whom it could be told.

    async def _wait(self, caller: str) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, {})[place] = None
        try:
            async with asyncio.timeout(self._limits.limit_s):
                await place
        except BaseException as error:
            if not place.cancelled():
                self._leave(caller)  # It had just been given.
            elif place in self._waiting.get(caller, ()):
                self._forget(caller, place)
            if isinstance(error, TimeoutError):
                message = "as many requests are being received as may be at once"
                raise TooManyRequests(message, retry_after_s=RETRY_AFTER_S) from error
            raise

    def _forget(self, caller: str, place: "asyncio.Future[None]") -> None:
        line = self._waiting.pop(caller)
        del line[place]
        if line:
            self._waiting[caller] = line

    def _has_place_for(self, caller: str) -> bool:
        free = self._limits.places - self.held
        return self._held[caller] < free if self._limits.shared else free > 0

    def _leave(self, caller: str) -> None:
        """Give a place back, and to the next caller in turn who may have it."""
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        while (next_caller := next(filter(self._has_place_for, self._waiting), None)) is not None:
            place = next(iter(self._waiting[next_caller]))
            self._forget(next_caller, place)
            if not place.cancelled():
                self._held[next_caller] += 1
                place.set_result(None)
