"""The client for asyncio."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
from grpc import aio

from mondrian import _health
from mondrian._async_stream import AsyncAnalysisStream, AsyncCall
from mondrian._catalogue import Advisor, Model
from mondrian._channel import DEFAULT_ADDRESS, channel_options
from mondrian._convert import advisor_from_wire, model_from_wire
from mondrian._errors import DeadlineExceeded
from mondrian._events import Progress, Result
from mondrian._images import ImageInput, listed, read_images
from mondrian._options import AnalyzeOptions
from mondrian._request import make_request
from mondrian._status import from_call
from mondrian._summary import Summary
from mondrian.v1 import (
    advisor_service_pb2,
    advisor_service_pb2_grpc,
    analysis_service_pb2,
    analysis_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)

_R = TypeVar("_R")


class AsyncClient:
    """A connection to a Mondrian server, for asyncio.

    It connects when it is first used, in the event loop of that moment, and again by itself when the connection is
    lost. Any number of tasks may share it. Close it with `async with` or `aclose()`.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS):
        """Prepare a client.

        Args:
            address: `host:port` of the server's gRPC port.
        """
        self.address = address
        self._channel: aio.Channel | None = None
        self._closed = False

    def analyze(
        self,
        prompt: str = "",
        *,
        images: Iterable[ImageInput] = (),
        timeout: float | None = None,
        **options: Unpack[AnalyzeOptions],
    ) -> AsyncAnalysisStream:
        """Analyse pictures, text or both; iterate over the result with `async for`.

        Args:
            prompt: the question or task, at most 32,000 characters.
            images: JPEG, PNG or WebP files, in the order in which the model sees them: paths (read in a thread, not on
                the event loop), bytes or files opened for reading bytes.
            timeout: the deadline of the call, in seconds from the moment when the first event is asked for. What was
                generated in time completes with `FinishReason.DEADLINE`.
            options: see `AnalyzeOptions`.

        Raises:
            MondrianError: one of its classes, from here or from the loop.
            OSError: from the loop; an image's path cannot be read.
        """
        request = make_request(prompt, **options)
        return AsyncAnalysisStream(partial(self._analyze, request, listed(images), timeout), self.address)

    async def ask(
        self,
        prompt: str = "",
        *,
        images: Iterable[ImageInput] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - callers of clients expect the name
        on_progress: Callable[[Progress], None] | None = None,
        **options: Unpack[AnalyzeOptions],
    ) -> Result:
        """Analyse and return the whole answer; `on_progress` is told of each progress event.

        Arguments and errors are those of `analyze`. Cancelling the task cancels the analysis.
        """
        summary = Summary(on_progress)
        async with self.analyze(prompt, images=images, timeout=timeout, **options) as events:
            async for event in events:
                summary.add(event)
        return summary.result()

    async def list_advisors(self, *, timeout: float | None = 30.0) -> list[Advisor]:  # noqa: ASYNC109 - callers of clients expect the name
        """Return the advisors, in the order of their ids. The timeout is in seconds, for each page."""
        stub = advisor_service_pb2_grpc.AdvisorServiceStub(self._connect())
        request = advisor_service_pb2.ListAdvisorsRequest()
        advisors: list[Advisor] = []
        while True:
            response = await self._answer(stub.ListAdvisors(request, timeout=timeout))
            advisors += map(advisor_from_wire, response.advisors)
            if not response.next_page_token:
                return advisors
            request.page_token = response.next_page_token

    async def list_models(self, *, timeout: float | None = 30.0) -> list[Model]:  # noqa: ASYNC109 - callers of clients expect the name
        """Return the models, the default one first. The timeout is in seconds, for each page."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._connect())
        request = model_service_pb2.ListModelsRequest()
        models: list[Model] = []
        while True:
            response = await self._answer(stub.ListModels(request, timeout=timeout))
            models += map(model_from_wire, response.models)
            if not response.next_page_token:
                return models
            request.page_token = response.next_page_token

    async def get_model(self, name: str, *, timeout: float | None = 30.0) -> Model:  # noqa: ASYNC109 - callers of clients expect the name
        """Return one model.

        Args:
            name: `models/{id}`.
            timeout: seconds; None waits for as long as the connection lives.

        Raises:
            ModelNotFound: the server has no such model.
        """
        stub = model_service_pb2_grpc.ModelServiceStub(self._connect())
        request = model_service_pb2.GetModelRequest(name=name)
        return model_from_wire((await self._answer(stub.GetModel(request, timeout=timeout))).model)

    async def wait_until_ready(self, *, timeout: float | None = 60.0) -> None:  # noqa: ASYNC109 - callers of clients expect the name
        """Return when the server is reached and says that it serves: its model is loaded.

        Raises:
            DeadlineExceeded: it was not so within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._wait_for_health()
        except TimeoutError:
            raise DeadlineExceeded(f"the server at {self.address} was not ready within {timeout:g} s") from None

    async def aclose(self) -> None:
        """Close the connection; analyses that still run are cancelled."""
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _connect(self) -> aio.Channel:
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._channel is None:
            self._channel = aio.insecure_channel(self.address, options=channel_options(self.address))
        return self._channel

    async def _analyze(
        self, request: analysis_service_pb2.AnalyzeRequest, images: list[ImageInput], deadline_s: float | None
    ) -> AsyncCall:
        on_disk = not all(isinstance(image, bytes) for image in images)
        files = await asyncio.to_thread(read_images, images) if on_disk else read_images(images)
        for data in files:
            request.config.images.add(data=data)
        stub = analysis_service_pb2_grpc.AnalysisServiceStub(self._connect())
        return stub.Analyze(request, timeout=deadline_s)

    async def _answer(self, call: Awaitable[_R]) -> _R:
        try:
            return await call
        except grpc.RpcError as error:
            raise from_call(error, self.address) from None

    async def _wait_for_health(self) -> None:
        while True:
            if await self._watch_health():
                return
            await asyncio.sleep(_health.RETRY_S)

    async def _watch_health(self) -> bool:
        watch = self._connect().unary_stream(_health.WATCH, _health.request_to_wire, _health.status_from_wire)
        call = watch("", wait_for_ready=True)
        try:
            async for status in call:
                if status == _health.SERVING:
                    return True
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise from_call(error, self.address) from None
        finally:
            call.cancel()
        return False
