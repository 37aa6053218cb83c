"""Following: the events of one analysis to its end, over as many calls to the server as that takes."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import grpc
from grpc import aio

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.gateway.connection import answer
from mondrian_server.gateway.options import Limits
from mondrian_server.gateway.refusals import Refusal, from_call, is_unreached, leaving

Call: TypeAlias = (
    aio.UnaryStreamCall[Any, service_pb.AnalyzeResponse]
    | aio.UnaryStreamCall[service_pb.WatchAnalysisRequest, service_pb.WatchAnalysisResponse]
)

_A = TypeVar("_A")

TERMINAL = frozenset({"completed", "failed", "cancelled"})
_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 2.0


class Patience:
    """Says how long to wait before the next try, and when to give up; an event that comes renews it."""

    def __init__(self, limits: Limits) -> None:
        """Begin before the first event."""
        self._limits = limits
        self._limit_s = limits.attach_limit_s
        self._attempts = 0
        self._interrupted_s: float | None = None
        self.begun = False
        """Whether an event has come, or the answer has begun for another reason."""

    def progressed(self) -> None:
        """Take note that the server has answered."""
        self.begun = True
        self._limit_s = self._limits.reattach_limit_s
        self._attempts = 0
        self._interrupted_s = None

    def delay_s(self, error: Refusal) -> float | None:
        """Return the seconds after which to try again; None where `error` is the end."""
        if not (is_unreached(error) or (self.begun and error.http_status == 503)):
            return None
        now_s = time.monotonic()
        if self._interrupted_s is None:
            self._interrupted_s = now_s
        longest_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(self._attempts, 16))
        self._attempts += 1
        delay_s = longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads callers; nothing secret
        return delay_s if now_s + delay_s - self._interrupted_s < self._limit_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The call that makes the analysis to follow.

    open: makes the call. It is used until an event has come, and must make one analysis, however often.
    forget: lets go of what only the call needed.
    """

    open: Callable[[], Call]
    forget: Callable[[], None]


class Following:
    """Follows one analysis. What it opened is closed by `close`, which every way out must reach."""

    def __init__(
        self,
        watch: Callable[[str, int], Call],
        limits: Limits,
        *,
        name: str = "",
        after_sequence: int = 0,
        begin: Beginning | None = None,
    ) -> None:
        """Prepare to follow; nothing is sent yet.

        Args:
            watch: opens a watch of an analysis after a sequence.
            limits: how long to wait for the server.
            name: the analysis; empty: the one of which `begin` tells.
            after_sequence: the last event that the caller has seen.
            begin: makes the analysis; None: there is one.

        """
        self._watch = watch
        self._begin = begin
        self._patience = Patience(limits)
        self._call: Call | None = None
        self._left = asyncio.Event()
        self._ended = False
        self.analysis = name
        self.sequence = after_sequence

    def begun(self) -> None:
        """Take note that the answer has begun before the first event: what fails from now on is tried again."""
        self._patience.progressed()

    def leave(self) -> None:
        """End the stream before the analysis: the gateway is ending."""
        self._left.set()
        self._hang_up()

    def close(self) -> None:
        """End the call, if there is one."""
        self._ended = True
        self._hang_up()

    async def next(self) -> pb.Event | None:
        """Return the next event; None after the terminal one. Raises Refusal where it cannot be had."""
        while not self._ended:
            try:
                event = await self._read()
            except Refusal as error:
                await self._wait(error)
                continue
            if event is None:
                self._ended = True
            elif event.sequence > self.sequence:
                self._advance(event)
                return event
        return None

    async def events(self) -> AsyncIterator[pb.Event]:
        """Iterate over the events that are left."""
        while (event := await self.next()) is not None:
            yield event

    def _advance(self, event: pb.Event) -> None:
        self._patience.progressed()
        if self._begin is not None:
            self._begin.forget()
            self._begin = None
        self.sequence, self.analysis = event.sequence, event.analysis
        self._ended = event.WhichOneof("payload") in TERMINAL

    async def _read(self) -> pb.Event | None:
        """Return the next event of the call; None at its end."""
        if self._left.is_set():
            raise leaving()
        if self._call is None:
            self._call = self._begin.open() if self._begin is not None else self._watch(self.analysis, self.sequence)
        try:
            response = await self._call.read()
        except grpc.RpcError as error:
            self._call = None
            raise from_call(error) from None
        except asyncio.CancelledError:
            # gRPC raises it for its own cancelled call too; only the task knows whether it was meant.
            if self._left.is_set() and not _task_is_cancelled():
                raise leaving() from None
            raise
        match response:
            case service_pb.AnalyzeResponse() | service_pb.WatchAnalysisResponse():
                return response.event
            case _:
                return None

    async def _wait(self, error: Refusal) -> None:
        """Wait until it is time to try again; raises `error` where it is not to be tried."""
        delay_s = None if self._left.is_set() else self._patience.delay_s(error)
        if delay_s is None:
            raise error
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._left.wait(), delay_s)

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()


async def patiently(make_call: Callable[[], Awaitable[_A]], limits: Limits) -> _A:
    """Return the answer of a call that may be repeated, and is while the server cannot be reached; raises Refusal."""
    patience = Patience(limits)
    while True:
        try:
            return await answer(make_call())
        except Refusal as error:
            delay_s = patience.delay_s(error)
            if delay_s is None:
                raise
        await asyncio.sleep(delay_s)


def _task_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
