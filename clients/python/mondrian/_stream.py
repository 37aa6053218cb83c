"""The streams of one analysis, for threads."""

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

import grpc

from mondrian._connection import Connection
from mondrian._convert import event_from_wire
from mondrian._cursor import Cursor
from mondrian._errors import AnalysisCancelled, MondrianError
from mondrian._events import Event
from mondrian._resume import OnInterruption, Resumption
from mondrian._status import from_call
from mondrian.v1 import analysis_pb2, analysis_service_pb2

_NAMING_TIMEOUT_S = 1.0
"""How long to wait for the name of an analysis that is no longer wanted."""


class SyncCall(Protocol):
    """What we need of gRPC's call."""

    def __next__(self) -> analysis_service_pb2.AnalyzeResponse | analysis_service_pb2.WatchAnalysisResponse:
        """Wait for the next message."""
        ...

    def cancel(self) -> bool:
        """Cancel the call, from any thread."""
        ...


class _Left(Exception):
    """The stream was left while its loop waited."""


class EventStream:
    """The events of one analysis, as they come. `Client.watch` gives one.

    The loop ends normally only after `Completed`; everything else raises, after the events that came before:
    the typed error where the analysis failed, `AnalysisCancelled` where it was cancelled.

    When the connection or the server is lost in between, the stream goes on by itself after the last event that came:
    none is missing and none comes twice.

    Leaving the loop never cancels the analysis. Use `with` or `close()` to end the call for sure. Nothing is sent
    before the first event is asked for. One thread iterates at a time; any thread may call `close()`.
    """

    def __init__(
        self,
        connection: Connection,
        resumption: Resumption,
        cursor: Cursor,
        on_interruption: OnInterruption | None = None,
    ):
        """Prepare a stream; the client does it for you."""
        self._connection = connection
        self._resumption = resumption
        self._cursor = cursor
        self._on_interruption = on_interruption
        self._call: SyncCall | None = None  # gRPC cancels it when the last reference goes, and so with the stream
        self._stop = threading.Event()
        self._ended = False
        connection.add(self)

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

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while (message := self._next_message()) is not None:
            event = event_from_wire(message)
            if event is not None:
                return event
        raise StopIteration

    def messages(self) -> Iterator[analysis_pb2.Event]:
        """Iterate over the wire's events instead, `failed` and `cancelled` included, then raise as the loop does."""
        try:
            while (message := self._next_message()) is not None:
                yield message
        finally:
            self.leave()

    def leave(self) -> None:
        """Leave now, as `close` does."""
        self._ended = True
        self._stop.set()
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        """Leave the stream: end the call and the iteration."""
        self.leave()
        self._ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _next_message(self) -> analysis_pb2.Event | None:
        if self._ended:
            return None
        try:
            message = self._read()
        except _Left:
            return self._left()
        except MondrianError as error:
            return self._end(error)
        except KeyboardInterrupt:
            self.close()
            if self._call is not None:
                self._call.cancel()
            raise
        return self._end() if message is None else message

    def _read(self) -> analysis_pb2.Event | None:
        """Return the next event, or None where the stream ends."""
        while not self._stop.is_set():
            try:
                event = self._receive(self._call or self._open())
            except StopIteration:
                return None
            except grpc.RpcError as error:
                self._wait_to_resume(error)
                continue
            if self._cursor.advance(event):
                self._resumption.progressed()
                if self._cursor.ended or not self._stop.is_set():
                    return event
        raise _Left

    def _receive(self, call: SyncCall) -> analysis_pb2.Event:
        return next(call).event

    def _open(self) -> SyncCall:
        self._call = self._start(self._resumption.time_left_s())
        if self._stop.is_set():  # while it was opened
            self._end_call(self._call)
        return self._call

    def _end_call(self, call: SyncCall) -> None:
        """End a call whose loop may wait for its first event."""
        call.cancel()

    def _start(self, time_left_s: float | None) -> SyncCall:
        request = analysis_service_pb2.WatchAnalysisRequest(
            name=self._cursor.analysis, after_sequence=self._cursor.sequence
        )
        return self._connection.analyses().WatchAnalysis(
            request, timeout=time_left_s, metadata=self._connection.metadata
        )

    def _wait_to_resume(self, rpc_error: grpc.RpcError) -> None:
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
        self._stop.wait(delay_s)

    def _left(self) -> None:
        self._ended = True

    def _end(self, error: MondrianError | None = None) -> None:
        self._ended = True
        ending = self._cursor.end(error)
        if ending is not None:
            raise ending from ending.__cause__


class AnalysisStream(EventStream):
    """The events of one analysis, as they come. `Client.analyze` gives one.

    The loop ends normally only after `Completed`; everything else raises, after the events that came before:
    the typed error where the analysis failed, `AnalysisCancelled` where it was cancelled.

    When the connection or the server is lost in between, the stream goes on by itself after the last event that came:
    none is missing and none comes twice.

    Leaving cancels. `with` guarantees that the analysis is cancelled when the block is left, in whatever way. A plain
    `for event in client.analyze(...)` that is left by `break`, an exception or Ctrl-C cancels as soon as nothing refers
    to the stream any more; on CPython that is at once, unless you keep the stream in a variable. The server is told in
    the background; `Client.close` waits for it. Where it cannot be told, the disconnect grace ends the analysis.

    Nothing is sent before the first event is asked for. One thread iterates at a time; any thread may call `cancel()`.
    """

    def __init__(
        self,
        connection: Connection,
        resumption: Resumption,
        begin: Callable[[float | None], SyncCall],
        on_interruption: OnInterruption | None = None,
    ):
        """Prepare a stream; the client does it for you."""
        super().__init__(connection, resumption, Cursor(), on_interruption)
        self._begin: Callable[[float | None], SyncCall] | None = begin
        self._farewell: Callable[[str], None] | None = None

    def cancel(self) -> None:
        """Cancel the analysis now, from any thread; a loop that waits for its events raises `AnalysisCancelled`.

        Without effect once the analysis has ended.
        """
        was_set = self._stop.is_set()
        self._stop.set()
        call = self._call
        self._say_farewell()
        if call is None or was_set:
            return
        self._end_call(call)

    def leave(self) -> None:
        """Cancel the analysis unless it has ended, and end the iteration, as `close` does."""
        self.cancel()

    def __del__(self) -> None:
        self._say_farewell()

    def _say_farewell(self) -> None:
        """Have the analysis cancelled, once, if it has a name and has not ended."""
        name, farewell = self._cursor.analysis, self._farewell
        if name and farewell is not None and not self._cursor.ended:
            self._farewell = None
            farewell(name)

    def _start(self, time_left_s: float | None) -> SyncCall:
        if self._begin is None:
            return super()._start(time_left_s)
        self._farewell = self._connection.farewell()
        return self._begin(time_left_s)

    def _receive(self, call: SyncCall) -> analysis_pb2.Event:
        event = super()._receive(call)
        self._begin = None  # with the images, which are not needed any more
        return event

    def _end_call(self, call: SyncCall) -> None:
        if self._cursor.analysis:
            call.cancel()
            return
        # The loop learns the name of the analysis before it raises, or else gives up.
        timer = threading.Timer(_NAMING_TIMEOUT_S, call.cancel)
        timer.daemon = True
        timer.start()

    def _left(self) -> None:
        self._say_farewell()
        self._end(AnalysisCancelled("the analysis was cancelled by this program"))

    def _end(self, error: MondrianError | None = None) -> None:
        self._farewell = None
        super()._end(error)
