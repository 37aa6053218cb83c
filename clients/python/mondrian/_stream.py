"""The stream of one analysis, for threads."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

import grpc

from mondrian._convert import event_from_wire
from mondrian._cursor import Cursor
from mondrian._errors import AnalysisCancelled, MondrianError
from mondrian._events import Event
from mondrian._status import from_call
from mondrian.v1 import analysis_pb2, analysis_service_pb2


class SyncCall(Protocol):
    """What we need of gRPC's call."""

    def __next__(self) -> analysis_service_pb2.AnalyzeResponse:
        """Wait for the next message."""
        ...

    def cancel(self) -> bool:
        """Cancel the call, from any thread."""
        ...


class AnalysisStream:
    """The events of one analysis, as they come.

    The loop ends normally only after `Completed`; everything else raises, after the events that came before:
    the typed error where the analysis failed, `AnalysisCancelled` where it was cancelled.

    Leaving cancels. `with` guarantees that the analysis is cancelled when the block is left, in whatever way. A plain
    `for event in client.analyze(...)` that is left by `break`, an exception or Ctrl-C cancels as soon as nothing refers
    to the stream any more; on CPython that is at once, unless you keep the stream in a variable.

    Nothing is sent before the first event is asked for. One thread iterates at a time; any thread may call `cancel()`.
    """

    def __init__(self, open_call: Callable[[], SyncCall], address: str):
        """Prepare a stream; `Client.analyze` does it for you."""
        self._open_call = open_call
        self._address = address
        self._cursor = Cursor()
        self._call: SyncCall | None = None  # gRPC cancels it when the last reference goes, and so with the stream
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
            self.cancel()

    def cancel(self) -> None:
        """Cancel the analysis now, from any thread; a loop that waits for its events raises `AnalysisCancelled`.

        Without effect once the analysis has ended.
        """
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        """Cancel the analysis unless it has ended, and end the iteration."""
        self._ended = True
        self.cancel()

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
        except grpc.RpcError as error:
            return self._end(self._translate(error))
        except KeyboardInterrupt:
            self.close()
            raise
        if message is None:
            return self._end()
        self._cursor.advance(message)
        return message

    def _read(self) -> analysis_pb2.Event | None:
        if self._call is None:
            self._call = self._open_call()
            if self._cancelled:  # before or while it was opened
                self._call.cancel()
        try:
            return next(self._call).event
        except StopIteration:
            return None

    def _translate(self, error: grpc.RpcError) -> MondrianError:
        if self._cancelled and error.code() is grpc.StatusCode.CANCELLED:
            return AnalysisCancelled("the analysis was cancelled by this program")
        return from_call(error, self._address, connected=self._cursor.sequence > 0)

    def _end(self, error: MondrianError | None = None) -> None:
        self._ended = True
        ending = self._cursor.end(error)
        if ending is not None:
            raise ending from None
