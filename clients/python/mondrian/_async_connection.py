"""The connection of the client for asyncio: its channel, and the farewells to analyses that nobody wants any more."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

import grpc
from grpc import aio

from mondrian._access import Access
from mondrian._channel import channel_options
from mondrian._resume import Contact
from mondrian._status import from_call
from mondrian.v1 import analysis_service_pb2, analysis_service_pb2_grpc

CANCEL_TIMEOUT_S = 2.0
"""How long a farewell may take. Where the server cannot be told, the disconnect grace ends the analysis."""

NAMING_TIMEOUT_S = 1.0
"""How long to wait for the name of an analysis that is no longer wanted."""

_R = TypeVar("_R")


class Leavable(Protocol):
    """A stream that ends with its client."""

    def leave(self) -> None:
        """End it now."""
        ...


class AsyncConnection:
    """A channel that is opened in the event loop of its first use."""

    def __init__(self, address: str, access: Access) -> None:
        self.address = address
        self.metadata = access.metadata
        self._credentials = access.credentials
        self.contact = Contact()
        self.streams: WeakSet[Leavable] = WeakSet()
        self._channel: aio.Channel | None = None
        self._closed = False
        self._farewells: set[asyncio.Task[None]] = set()

    def channel(self) -> aio.Channel:
        """Return the channel; raises RuntimeError when the client is closed."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._channel is None:
            options = channel_options(self.address)
            if self._credentials is None:
                self._channel = aio.insecure_channel(self.address, options=options)
            else:
                self._channel = aio.secure_channel(self.address, self._credentials, options=options)
        return self._channel

    def analyses(self) -> "analysis_service_pb2_grpc.AnalysisServiceAsyncStub":
        """Return the stub of the analyses."""
        return analysis_service_pb2_grpc.AnalysisServiceStub(self.channel())

    async def answer(self, call: Awaitable[_R]) -> _R:
        """Return what a call answers; its errors are ours."""
        try:
            answer = await call
        except grpc.RpcError as error:
            self.contact.note(error)
            raise from_call(error, self.address) from None
        self.contact.made = True
        return answer

    def cancel_analysis(self, name: str, call: aio.Call | None, first: "asyncio.Future[Any] | None") -> None:
        """Cancel an analysis and its call, in the background.

        Args:
            name: the analysis; empty: not known yet.
            call: its stream, if it has one at present.
            first: the read of the first event, where the name is not known.

        """
        if name and call is not None:
            call.cancel()
        task = asyncio.get_running_loop().create_task(self._cancel_analysis(name, call, first))
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    async def aclose(self) -> None:
        """End the streams, wait for the farewells and close the channel."""
        self._closed = True
        for stream in tuple(self.streams):
            stream.leave()
        await asyncio.sleep(0)  # streams that were dropped have asked the loop for their farewells
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=NAMING_TIMEOUT_S + CANCEL_TIMEOUT_S)
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _cancel_analysis(self, name: str, call: aio.Call | None, first: "asyncio.Future[Any] | None") -> None:
        name = name or await _name_in(first)
        if call is not None:
            call.cancel()
        if name and self._channel is not None:
            stub = analysis_service_pb2_grpc.AnalysisServiceStub(self._channel)
            request = analysis_service_pb2.CancelAnalysisRequest(name=name)
            with contextlib.suppress(grpc.RpcError):
                await stub.CancelAnalysis(request, timeout=CANCEL_TIMEOUT_S, metadata=self.metadata)


async def _name_in(first: "asyncio.Future[Any] | None") -> str:
    """Wait for the first event a little, and return the analysis that it names."""
    if first is None:
        return ""
    await asyncio.wait((first,), timeout=NAMING_TIMEOUT_S)
    if not first.done() or first.cancelled() or first.exception() is not None:
        return ""
    response = first.result()
    return response.event.analysis if response is not aio.EOF else ""
