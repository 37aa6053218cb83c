"""The connection of the client for threads: its channel, and the farewells to analyses that nobody wants any more."""

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol, TypeVar
from weakref import WeakSet

import grpc

from mondrian._access import Access, Metadata
from mondrian._channel import channel_options
from mondrian._resume import Contact
from mondrian._status import from_call
from mondrian.v1 import analysis_service_pb2, analysis_service_pb2_grpc

CANCEL_TIMEOUT_S = 2.0
"""How long a farewell may take. Where the server cannot be told, the disconnect grace ends the analysis."""

_R = TypeVar("_R")


class Leavable(Protocol):
    """A stream that ends with its client."""

    def leave(self) -> None:
        """End it now, from any thread."""
        ...


class Connection:
    """A channel that any number of threads share."""

    def __init__(self, address: str, access: Access) -> None:
        self.address = address
        self.metadata = access.metadata
        self.contact = Contact()
        self._channel = _open(address, access)
        self._lock = threading.Lock()
        self._streams: WeakSet[Leavable] = WeakSet()
        self._farewells: _Farewells | None = None
        self._closed = False

    def channel(self) -> grpc.Channel:
        """Return the channel; raises RuntimeError when the client is closed."""
        if self._closed:
            raise RuntimeError("the client is closed")
        return self._channel

    def analyses(self) -> analysis_service_pb2_grpc.AnalysisServiceStub:
        """Return the stub of the analyses."""
        return analysis_service_pb2_grpc.AnalysisServiceStub(self.channel())

    def answer(self, call: Callable[[], _R]) -> _R:
        """Return what a call answers; its errors are ours."""
        try:
            answer = call()
        except grpc.RpcError as error:
            self.contact.note(error)
            raise from_call(error, self.address) from None
        self.contact.made = True
        return answer

    def add(self, stream: Leavable) -> None:
        """Take note of a stream that is to end with the client."""
        with self._lock:
            self._streams.add(stream)

    def farewell(self) -> Callable[[str], None]:
        """Return a function that cancels an analysis in the background; destructors may call it, and any thread."""
        with self._lock:
            if self._farewells is None:
                self._farewells = _Farewells(
                    analysis_service_pb2_grpc.AnalysisServiceStub(self._channel), self.metadata
                )
            return self._farewells.names.put

    def close(self) -> None:
        """End the streams, wait for the farewells and close the channel."""
        self._closed = True
        with self._lock:
            streams, farewells = tuple(self._streams), self._farewells
        for stream in streams:
            stream.leave()
        if farewells is not None:
            farewells.close()
        self._channel.close()


class _Farewells:
    """A thread that cancels the analyses whose names are put into a queue.

    A destructor must not call gRPC: it may run in the middle of gRPC's own code, whose locks it would wait for.
    """

    def __init__(self, stub: analysis_service_pb2_grpc.AnalysisServiceStub, metadata: Metadata) -> None:
        self.names: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=_say, args=(self.names, stub, metadata), name="mondrian farewells", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Wait until every farewell is said."""
        self.names.put(None)
        self._thread.join(CANCEL_TIMEOUT_S + 1.0)

    def __del__(self) -> None:
        self.names.put(None)  # a client that nobody closed


def _open(address: str, access: Access) -> grpc.Channel:
    options = channel_options(address)
    if access.credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, access.credentials, options=options)


def _say(
    names: "SimpleQueue[str | None]", stub: analysis_service_pb2_grpc.AnalysisServiceStub, metadata: Metadata
) -> None:
    said: list[grpc.Future[analysis_service_pb2.CancelAnalysisResponse]] = []
    with contextlib.suppress(ValueError):  # the channel is closed
        while (name := names.get()) is not None:
            request = analysis_service_pb2.CancelAnalysisRequest(name=name)
            said = [future for future in said if not future.done()]
            said.append(stub.CancelAnalysis.future(request, timeout=CANCEL_TIMEOUT_S, metadata=metadata))
    for future in said:
        with contextlib.suppress(grpc.FutureCancelledError):
            future.exception()
