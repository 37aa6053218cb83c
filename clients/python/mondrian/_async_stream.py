"""The streams of one analysis, for asyncio."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc
from grpc import aio

from mondrian._async_connection import AsyncConnection
from mondrian._convert import event_from_wire
from mondrian._cursor import Cursor
from mondrian._errors import AnalysisCancelled, MondrianError
from mondrian._events import Event
from mondrian._resume import OnInterruption, Resumption
from mondrian._status import from_call
from mondrian.v1 import analysis_pb2, analysis_service_pb2

AsyncCall: TypeAlias = (
    aio.UnaryStreamCall[analysis_service_pb2.AnalyzeRequest, analysis_service_pb2.AnalyzeResponse]
    | aio.UnaryStreamCall[analysis_service_pb2.WatchAnalysisRequest, analysis_service_pb2.WatchAnalysisResponse]
)


class AsyncEventStream:
    """The events of one analysis, as they come. `AsyncClient.watch` gives one.

    The loop ends normally only after `Completed`; everything else raises, after the events that came before:
    the typed error where the analysis failed, `AnalysisCancelled` where it was cancelled.

    When the connection or the server is lost in between, the stream goes on by itself after the last event that came:
    none is missing and none comes twice.

    Leaving the loop never cancels the analysis. Use `async with` or `aclose()` to end the call for sure. Nothing is
    sent before the first event is asked for. One task iterates at a time.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        resumption: Resumption,
        cursor: Cursor,
        on_interruption: OnInterruption | None = None,
    ):
        """Prepare a stream; the client does it for you."""
        self._connection = connection
        self._resumption = resumption
        self._cursor = cursor
        self._on_interruption = on_interruption
        self._call: AsyncCall | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._ended = False
        connection.streams.add(self)

    @property
    def analysis(self) -> str:
        """The analysis's name, `analyses/{id}`; empty before it was accepted."""
        return self._cursor.analysis

    @property
    def sequence(self) -> int:
        """The sequence of the last event that came; before the first, that after which the stream begins."""
        return self._cursor.sequence

    @property
    def text(self) -> str:
        """The text of the events that came; it stays valid when the analysis fails."""
        return self._cursor.text

    @property
    def left(self) -> bool:
        """Whether this program left the stream before the analysis ended."""
        return self._stop.is_set() and not self._cursor.ended

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
            self.leave()

    def leave(self) -> None:
        """Leave now, as `aclose` does; call it in the event loop's thread."""
        self._ended = True
        self._stop.set()
        if self._call is not None:
            self._call.cancel()

    async def aclose(self) -> None:
        """Leave the stream: end the call and the iteration."""
        self.leave()
        self._ended = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._loop is not None and not self._stop.is_set():
            # The garbage collector may run in another thread, where a call must not be touched.
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the call with it
                self._abandon(self._loop)

    def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave, from any thread, after nothing refers to the stream any more."""
        if self._call is not None:
            loop.call_soon_threadsafe(self._call.cancel)

    async def _next_message(self) -> analysis_pb2.Event | None:
        if self._ended:
            return None
        try:
            message = await self._read()
        except asyncio.CancelledError:
            was_left = self._stop.is_set()
            self.leave()
            if _task_is_cancelled():
                raise
            return self._left() if was_left else self._end(AnalysisCancelled("the call was cancelled on its way"))
        except MondrianError as error:
            return self._end(error)
        return self._end() if message is None else message

    async def _read(self) -> analysis_pb2.Event | None:
        """Return the next event, or None where the stream ends; raises CancelledError once it was left."""
        while not self._stop.is_set():
            try:
                response = await self._receive(self._call or await self._open())
            except grpc.RpcError as error:
                await self._wait_to_resume(error)
                continue
            if response is None:
                return None
            if self._cursor.advance(response):
                self._resumption.progressed()
                return response
        raise asyncio.CancelledError

    async def _receive(self, call: AsyncCall) -> analysis_pb2.Event | None:
        return _event_in(await call.read())

    async def _open(self) -> AsyncCall:
        self._loop = asyncio.get_running_loop()
        self._call = await self._start(self._resumption.time_left_s())
        if self._stop.is_set():  # while the images were being read
            self._call.cancel()
        return self._call

    async def _start(self, time_left_s: float | None) -> AsyncCall:
        request = analysis_service_pb2.WatchAnalysisRequest(
            name=self._cursor.analysis, after_sequence=self._cursor.sequence
        )
        return self._connection.analyses().WatchAnalysis(
            request, timeout=time_left_s, metadata=self._connection.metadata
        )

    async def _wait_to_resume(self, rpc_error: grpc.RpcError) -> None:
        """Wait until it is time to try again; raises what ended the call where it is not to be resumed."""
        self._connection.contact.note(rpc_error)
        if self._stop.is_set():
            return
        error = from_call(rpc_error, self._connection.address, connected=self._cursor.sequence > 0)
        if self._cursor.ended:
            raise error from None
        delay_s = self._resumption.delay_s(error)
        self._call = None
        if self._on_interruption is not None:
            self._on_interruption(error, delay_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), delay_s)

    def _left(self) -> None:
        self._ended = True

    def _end(self, error: MondrianError | None = None) -> None:
        self._ended = True
        ending = self._cursor.end(error)
        if ending is not None:
            raise ending from ending.__cause__


class AsyncAnalysisStream(AsyncEventStream):
    """The events of one analysis, as they come. `AsyncClient.analyze` gives one.

    The loop ends normally only after `Completed`; everything else raises, after the events that came before:
    the typed error where the analysis failed, `AnalysisCancelled` where it was cancelled.

    When the connection or the server is lost in between, the stream goes on by itself after the last event that came:
    none is missing and none comes twice.

    Leaving cancels. `async with` guarantees that the analysis is cancelled when the block is left, in whatever way.
    A plain `async for event in client.analyze(...)` that is left by `break`, an exception or the task's cancellation
    cancels as soon as nothing refers to the stream any more; on CPython that is at once, unless you keep the stream in
    a variable. Then use `async with`, or call `cancel()`. The server is told in the background; `AsyncClient.aclose`
    waits for it. Where it cannot be told, the disconnect grace ends the analysis.

    Nothing is sent before the first event is asked for. One task iterates at a time.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        resumption: Resumption,
        begin: Callable[[float | None], Awaitable[AsyncCall]],
        on_interruption: OnInterruption | None = None,
    ):
        """Prepare a stream; the client does it for you."""
        super().__init__(connection, resumption, Cursor(), on_interruption)
        self._begin: Callable[[float | None], Awaitable[AsyncCall]] | None = begin
        self._first: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """Cancel the analysis now; a loop that waits for its events raises `AnalysisCancelled`.

        Call it in the event loop's thread. Without effect once the analysis has ended.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        if self._ended or self._cursor.ended:
            if self._call is not None:
                self._call.cancel()
        elif self._call is not None or self._cursor.analysis:
            self._connection.cancel_analysis(self._cursor.analysis, self._call, self._first)

    def leave(self) -> None:
        """Cancel the analysis unless it has ended, and end the iteration, as `aclose` does."""
        self.cancel()

    def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._ended or self._cursor.ended:
            super()._abandon(loop)
        else:
            loop.call_soon_threadsafe(self._connection.cancel_analysis, self._cursor.analysis, self._call, self._first)

    async def _receive(self, call: AsyncCall) -> analysis_pb2.Event | None:
        if self._cursor.sequence > 0:
            return await super()._receive(call)
        # A read that is cancelled takes its call along. The first one goes on for a moment, to learn the name of the
        # analysis that is to be cancelled.
        self._first = asyncio.create_task(call.read())
        event = _event_in(await asyncio.shield(self._first))
        self._first = self._begin = None
        return event

    async def _start(self, time_left_s: float | None) -> AsyncCall:
        return await (self._begin(time_left_s) if self._begin is not None else super()._start(time_left_s))

    def _left(self) -> None:
        self._end(AnalysisCancelled("the analysis was cancelled by this program"))


def _event_in(response: object) -> analysis_pb2.Event | None:
    """Return the event of a response; None at the end of a call."""
    match response:
        case analysis_service_pb2.AnalyzeResponse() | analysis_service_pb2.WatchAnalysisResponse():
            return response.event
        case _:
            return None


def _task_is_cancelled() -> bool:
    # gRPC raises CancelledError for its own cancelled call too; only the task knows whether it was meant.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
