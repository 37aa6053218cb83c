"""The client for threads: the same as the one for asyncio, without `async`."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

from mondrian import _health
from mondrian._catalogue import Advisor, Model
from mondrian._channel import DEFAULT_ADDRESS, channel_options
from mondrian._convert import advisor_from_wire, model_from_wire
from mondrian._errors import DeadlineExceeded
from mondrian._events import Progress, Result
from mondrian._images import ImageInput, listed, read_images
from mondrian._options import AnalyzeOptions
from mondrian._request import make_request
from mondrian._status import from_call
from mondrian._stream import AnalysisStream, SyncCall
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


class Client:
    """A connection to a Mondrian server, for threads.

    It connects when it is first used, and again by itself when the connection is lost. Any number of threads may share
    it. Close it with `with` or `close()`.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS):
        """Prepare a client.

        Args:
            address: `host:port` of the server's gRPC port.
        """
        self.address = address
        self._channel = grpc.insecure_channel(address, options=channel_options(address))
        self._closed = False

    def analyze(
        self,
        prompt: str = "",
        *,
        images: Iterable[ImageInput] = (),
        timeout: float | None = None,
        **options: Unpack[AnalyzeOptions],
    ) -> AnalysisStream:
        """Analyse pictures, text or both; iterate over the result with `for`.

        Args:
            prompt: the question or task, at most 32,000 characters.
            images: JPEG, PNG or WebP files, in the order in which the model sees them: paths, bytes or files opened
                for reading bytes.
            timeout: the deadline of the call, in seconds from the moment when the first event is asked for. What was
                generated in time completes with `FinishReason.DEADLINE`.
            options: see `AnalyzeOptions`.

        Raises:
            MondrianError: one of its classes, from here or from the loop.
            OSError: from the loop; an image's path cannot be read.
        """
        request = make_request(prompt, **options)
        return AnalysisStream(partial(self._analyze, request, listed(images), timeout), self.address)

    def ask(
        self,
        prompt: str = "",
        *,
        images: Iterable[ImageInput] = (),
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        **options: Unpack[AnalyzeOptions],
    ) -> Result:
        """Analyse and return the whole answer; `on_progress` is told of each progress event.

        Arguments and errors are those of `analyze`.
        """
        summary = Summary(on_progress)
        with self.analyze(prompt, images=images, timeout=timeout, **options) as events:
            for event in events:
                summary.add(event)
        return summary.result()

    def list_advisors(self, *, timeout: float | None = 30.0) -> list[Advisor]:
        """Return the advisors, in the order of their ids. The timeout is in seconds, for each page."""
        stub = advisor_service_pb2_grpc.AdvisorServiceStub(self._connect())
        request = advisor_service_pb2.ListAdvisorsRequest()
        advisors: list[Advisor] = []
        while True:
            response = self._answer(partial(stub.ListAdvisors, request, timeout=timeout))
            advisors += map(advisor_from_wire, response.advisors)
            if not response.next_page_token:
                return advisors
            request.page_token = response.next_page_token

    def list_models(self, *, timeout: float | None = 30.0) -> list[Model]:
        """Return the models, the default one first. The timeout is in seconds, for each page."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._connect())
        request = model_service_pb2.ListModelsRequest()
        models: list[Model] = []
        while True:
            response = self._answer(partial(stub.ListModels, request, timeout=timeout))
            models += map(model_from_wire, response.models)
            if not response.next_page_token:
                return models
            request.page_token = response.next_page_token

    def get_model(self, name: str, *, timeout: float | None = 30.0) -> Model:
        """Return one model.

        Args:
            name: `models/{id}`.
            timeout: seconds; None waits for as long as the connection lives.

        Raises:
            ModelNotFound: the server has no such model.
        """
        stub = model_service_pb2_grpc.ModelServiceStub(self._connect())
        request = model_service_pb2.GetModelRequest(name=name)
        return model_from_wire(self._answer(partial(stub.GetModel, request, timeout=timeout)).model)

    def wait_until_ready(self, *, timeout: float | None = 60.0) -> None:
        """Return when the server is reached and says that it serves: its model is loaded.

        Raises:
            DeadlineExceeded: it was not so within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._watch_health(None if deadline is None else deadline - time.monotonic()):
            if deadline is not None and time.monotonic() >= deadline:
                raise DeadlineExceeded(f"the server at {self.address} was not ready within {timeout:g} s")
            time.sleep(_health.RETRY_S)

    def close(self) -> None:
        """Close the connection; analyses that still run are cancelled."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> grpc.Channel:
        if self._closed:
            raise RuntimeError("the client is closed")
        return self._channel

    def _analyze(
        self, request: analysis_service_pb2.AnalyzeRequest, images: list[ImageInput], timeout: float | None
    ) -> SyncCall:
        for data in read_images(images):
            request.config.images.add(data=data)
        stub = analysis_service_pb2_grpc.AnalysisServiceStub(self._connect())
        return stub.Analyze(request, timeout=timeout)

    def _answer(self, call: Callable[[], _R]) -> _R:
        try:
            return call()
        except grpc.RpcError as error:
            raise from_call(error, self.address) from None

    def _watch_health(self, timeout: float | None) -> bool:
        watch = self._connect().unary_stream(_health.WATCH, _health.request_to_wire, _health.status_from_wire)
        call = watch("", timeout=timeout, wait_for_ready=True)
        try:
            return any(status == _health.SERVING for status in call)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise from_call(error, self.address) from None
            return False
        finally:
            call.cancel()
