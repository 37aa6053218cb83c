"""The stream of one analysis, for asyncio."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

import grpc
from grpc import aio

from mondrian._convert import event_from_wire
from mondrian._cursor import Cursor
from mondrian._errors import AnalysisCancelled, MondrianError
from mondrian._events import Event
from mondrian._status import from_call
from mondrian.v1 import analysis_pb2, analysis_service_pb2

AsyncCall = aio.UnaryStreamCall[analysis_service_pb2.AnalyzeRequest, analysis_service_pb2.AnalyzeResponse]


class AsyncAnalysisStream:
    """The events of one analysis, as they come.

    The loop ends normally only after `Completed`; everything else raises, after the events that came before:
    the typed error where the analysis failed, `AnalysisCancelled` where it was cancelled.

    Leaving cancels. `async with` guarantees that the analysis is cancelled when the block is left, in whatever way.
    A plain `async for event in client.analyze(...)` that is left by `break`, an exception or the task's cancellation
    cancels as soon as nothing refers to the stream any more; on CPython that is at once, unless you keep the stream in
    a variable. Then use `async with`, or call `cancel()`.

    Nothing is sent before the first event is asked for. One task iterates at a time.
    """

    def __init__(self, open_call: Callable[[], Awaitable[AsyncCall]], address: str):
        """Prepare a stream; `AsyncClient.analyze` does it for you."""
        self._open_call = open_call
        self._address = address
        self._cursor = Cursor()
        self._call: AsyncCall | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancelled = False
        self._ended = False

    @property
    def analysis(self) -> str:
        """The analysis's name, `analyses/{id}`; empty before it was accepted."""
        return self._cursor.analysis

    @property
    def sequence(self) -> int:
        """The sequence of the last event that came; 0 before the first."""
        return self._cursor.sequence

    @property
    def text(self) -> str:
        """The text so far; it stays valid when the analysis fails."""
        return self._cursor.text

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (message := await self._next_message()) is not None:
            event = event_from_wire(message)
            if event is not None:
                return event
        raise StopAsyncIteration

    async def messages(self) -> AsyncIterator[analysis_pb2.Event]:
        """Iterate over the wire's events instead, `failed` and `cancelled` included, then raise as the loop does."""
        try:
            while (message := await self._next_message()) is not None:
                yield message
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the analysis now; a loop that waits for its events raises `AnalysisCancelled`.

        Call it in the event loop's thread. Without effect once the analysis has ended.
        """
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()

    async def aclose(self) -> None:
        """Cancel the analysis unless it has ended, and end the iteration."""
        self._ended = True
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._call is None or self._loop is None or self._call.done():
            return
        # The garbage collector may run in another thread, where a call must not be touched.
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the call with it
            self._loop.call_soon_threadsafe(self._call.cancel)

    async def _next_message(self) -> analysis_pb2.Event | None:
        if self._ended:
            return None
        try:
            message = await self._read()
        except asyncio.CancelledError:
            self.cancel()
            if _task_is_cancelled():
                raise
            return self._end(AnalysisCancelled("the analysis was cancelled by this program"))
        except grpc.RpcError as error:
            return self._end(from_call(error, self._address, connected=self._cursor.sequence > 0))
        if message is None:
            return self._end()
        self._cursor.advance(message)
        return message

    async def _read(self) -> analysis_pb2.Event | None:
        if self._call is None:
            self._call = await self._open()
        response = await self._call.read()
        return response.event if isinstance(response, analysis_service_pb2.AnalyzeResponse) else None

    async def _open(self) -> AsyncCall:
        self._loop = asyncio.get_running_loop()
        call = await self._open_call()
        if self._cancelled:  # while the images were being read
            call.cancel()
        return call

    def _end(self, error: MondrianError | None = None) -> None:
        self._ended = True
        ending = self._cursor.end(error)
        if ending is not None:
            raise ending from None


def _task_is_cancelled() -> bool:
    # gRPC raises CancelledError for its own cancelled call too; only the task knows whether it was meant.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
