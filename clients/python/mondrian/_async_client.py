"""The client for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Self, Unpack

import grpc

from mondrian import _health
from mondrian._access import Tls, make_access
from mondrian._analysis import Analysis
from mondrian._async_connection import AsyncConnection
from mondrian._async_stream import AsyncAnalysisStream, AsyncCall, AsyncEventStream
from mondrian._catalogue import Advisor, Model
from mondrian._channel import DEFAULT_ADDRESS
from mondrian._convert import advisor_from_wire, model_from_wire
from mondrian._cursor import Cursor
from mondrian._errors import DeadlineExceeded, MondrianError
from mondrian._events import Progress, Result
from mondrian._images import ImageInput, listed, read_images
from mondrian._options import AnalyzeOptions
from mondrian._request import make_analyze_request, make_list_request, make_request
from mondrian._results import AnalysisState
from mondrian._resume import DEFAULT_LIMIT_S, OnInterruption, Resumption
from mondrian._snapshot import analysis_from_wire
from mondrian._status import from_call
from mondrian._summary import Summary
from mondrian.v1 import (
    advisor_service_pb2,
    advisor_service_pb2_grpc,
    analysis_pb2,
    analysis_service_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
)

DISCONNECT_GRACE_S = 30.0
"""How long an analysis waits by default for a caller that was lost."""


class AsyncClient:
    """A connection to a Mondrian server, for asyncio.

    It connects when it is first used, in the event loop of that moment, and again by itself when the connection is
    lost. Any number of tasks may share it. Close it with `async with` or `aclose()`.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, api_key: str | None = None, tls: Tls | bool = False):
        """Prepare a client.

        Args:
            address: `host:port` of the server's gRPC port.
            api_key: what shows the server who calls. It is sent over TLS, or to this machine, and nowhere else.
            tls: whether to encrypt the connection; `Tls` says whom to trust, and holds a client certificate.

        Raises:
            ValueError: the key would be sent in the clear, or cannot be one.
            OSError: a file of `tls` cannot be read.
        """
        self.address = address
        self._connection = AsyncConnection(address, make_access(address, api_key, tls))

    def analyze(
        self,
        prompt: str = "",
        *,
        images: Iterable[ImageInput] = (),
        timeout: float | None = None,
        disconnect_grace: float = DISCONNECT_GRACE_S,
        resume_limit_s: float | None = DEFAULT_LIMIT_S,
        on_interruption: OnInterruption | None = None,
        **options: Unpack[AnalyzeOptions],
    ) -> AsyncAnalysisStream:
        """Analyse pictures, text or both; iterate over the result with `async for`.

        Args:
            prompt: the question or task, at most 32,000 characters.
            images: image files, in the order in which the model sees them: paths (read in a thread, not on
                the event loop), bytes or files opened for reading bytes.
            timeout: the deadline, in seconds from the moment when the first event is asked for, resumes included. What
                was generated in time completes with `FinishReason.DEADLINE`; the server ends it some 4 % and 0.25 s
                earlier, so that it arrives.
            disconnect_grace: seconds for which the analysis goes on when this program is lost, at most one hour.
            resume_limit_s: how long to try to go on after an interruption without a new event; None or 0: not at all.
                A server that this client has never reached is not waited for; see `wait_until_ready`.
            on_interruption: is told of each interruption: the error, and the seconds until the next try. It may raise
                to give up.
            options: see `AnalyzeOptions`.

        Raises:
            MondrianError: one of its classes, from here or from the loop.
            OSError: from the loop; an image's path cannot be read.
        """
        request = make_analyze_request(prompt, disconnect_grace=disconnect_grace, **options)
        begin = partial(self._begin, request, listed(images))
        return AsyncAnalysisStream(self._connection, self._resumption(resume_limit_s, timeout), begin, on_interruption)

    async def ask(
        self,
        prompt: str = "",
        *,
        images: Iterable[ImageInput] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - callers of clients expect the name
        disconnect_grace: float = DISCONNECT_GRACE_S,
        resume_limit_s: float | None = DEFAULT_LIMIT_S,
        on_interruption: OnInterruption | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        **options: Unpack[AnalyzeOptions],
    ) -> Result:
        """Analyse and return the whole answer; `on_progress` is told of each progress event.

        Arguments and errors are those of `analyze`. Cancelling the task cancels the analysis.
        """
        summary = Summary(on_progress)
        stream = self.analyze(
            prompt,
            images=images,
            timeout=timeout,
            disconnect_grace=disconnect_grace,
            resume_limit_s=resume_limit_s,
            on_interruption=on_interruption,
            **options,
        )
        async with stream as events:
            async for event in events:
                summary.add(event)
        return summary.result()

    def watch(
        self,
        name: str,
        after_sequence: int = 0,
        *,
        timeout: float | None = None,
        resume_limit_s: float | None = DEFAULT_LIMIT_S,
        on_interruption: OnInterruption | None = None,
    ) -> AsyncEventStream:
        """Follow an analysis from any point of it; iterate over the result with `async for`. Leaving cancels nothing.

        Args:
            name: `analyses/{id}`.
            after_sequence: the sequence of the last event that was seen; 0: none.
            timeout: raise `DeadlineExceeded` after so many seconds; the analysis goes on.
            resume_limit_s: as in `analyze`.
            on_interruption: as in `analyze`.

        Raises:
            AnalysisNotFound: from the loop, as are all; there is no such analysis.
            EventsExpired: its events have been deleted.
            MondrianError: another one of its classes.
        """
        cursor = Cursor(name, after_sequence)
        return AsyncEventStream(self._connection, self._resumption(resume_limit_s, timeout), cursor, on_interruption)

    async def create(
        self,
        prompt: str = "",
        *,
        images: Iterable[ImageInput] = (),
        timeout: float | None = 60.0,  # noqa: ASYNC109 - callers of clients expect the name
        **options: Unpack[AnalyzeOptions],
    ) -> Analysis:
        """Create an analysis that runs by itself, and return it as soon as the server has kept it.

        While the server is unavailable the call is repeated; the request id sees to it that one analysis comes of it.

        Args:
            prompt: the question or task, at most 32,000 characters.
            images: as in `analyze`.
            timeout: seconds in all. For the analysis itself, see `time_limit`.
            options: see `AnalyzeOptions`.

        Raises:
            MondrianError: one of its classes.
            OSError: an image's path cannot be read.
        """
        request = make_request(analysis_service_pb2.CreateAnalysisRequest, prompt, **options)
        await _put_images(request.config, listed(images))
        resumption = self._resumption(timeout or DEFAULT_LIMIT_S, timeout)
        while True:
            try:
                call = self._connection.analyses().CreateAnalysis(
                    request, timeout=resumption.time_left_s(), metadata=self._connection.metadata
                )
                return analysis_from_wire((await self._connection.answer(call)).analysis)
            except MondrianError as error:
                delay_s = resumption.delay_s(error)
            await asyncio.sleep(delay_s)

    async def get(self, name: str, *, timeout: float | None = 30.0) -> Analysis:  # noqa: ASYNC109 - callers of clients expect the name
        """Return an analysis as it stands now.

        Args:
            name: `analyses/{id}`.
            timeout: seconds; None waits for as long as the connection lives.

        Raises:
            AnalysisNotFound: there is no such analysis.
        """
        request = analysis_service_pb2.GetAnalysisRequest(name=name)
        call = self._connection.analyses().GetAnalysis(request, timeout=timeout, metadata=self._connection.metadata)
        return analysis_from_wire((await self._connection.answer(call)).analysis)

    async def cancel(self, name: str, *, timeout: float | None = 30.0) -> Analysis:  # noqa: ASYNC109 - callers of clients expect the name
        """Cancel an analysis and return it; one that has ended is left as it is.

        Raises:
            AnalysisNotFound: there is no such analysis.
        """
        request = analysis_service_pb2.CancelAnalysisRequest(name=name)
        call = self._connection.analyses().CancelAnalysis(request, timeout=timeout, metadata=self._connection.metadata)
        return analysis_from_wire((await self._connection.answer(call)).analysis)

    async def delete(self, name: str, *, timeout: float | None = 30.0) -> None:  # noqa: ASYNC109 - callers of clients expect the name
        """Delete an ended analysis with everything that is kept of it.

        Raises:
            AnalysisActive: it has not ended; cancel it first.
            AnalysisNotFound: there is no such analysis.
        """
        request = analysis_service_pb2.DeleteAnalysisRequest(name=name)
        await self._connection.answer(
            self._connection.analyses().DeleteAnalysis(request, timeout=timeout, metadata=self._connection.metadata)
        )

    async def list_advisors(self, *, timeout: float | None = 30.0) -> list[Advisor]:  # noqa: ASYNC109 - callers of clients expect the name
        """Return the advisors, in the order of their ids. The timeout is in seconds, for each page."""
        stub = advisor_service_pb2_grpc.AdvisorServiceStub(self._connection.channel())
        request = advisor_service_pb2.ListAdvisorsRequest()
        advisors: list[Advisor] = []
        while True:
            response = await self._connection.answer(
                stub.ListAdvisors(request, timeout=timeout, metadata=self._connection.metadata)
            )
            advisors += map(advisor_from_wire, response.advisors)
            if not response.next_page_token:
                return advisors
            request.page_token = response.next_page_token

    async def list_models(self, *, timeout: float | None = 30.0) -> list[Model]:  # noqa: ASYNC109 - callers of clients expect the name
        """Return the models, the default one first. The timeout is in seconds, for each page."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._connection.channel())
        request = model_service_pb2.ListModelsRequest()
        models: list[Model] = []
        while True:
            response = await self._connection.answer(
                stub.ListModels(request, timeout=timeout, metadata=self._connection.metadata)
            )
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
        stub = model_service_pb2_grpc.ModelServiceStub(self._connection.channel())
        request = model_service_pb2.GetModelRequest(name=name)
        return model_from_wire(
            (
                await self._connection.answer(
                    stub.GetModel(request, timeout=timeout, metadata=self._connection.metadata)
                )
            ).model
        )

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
        """Cancel the analyses of loops that still run, wait until the server knows, and close the connection."""
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def list(
        self,
        *,
        states: Iterable[AnalysisState] = (),
        page_size: int = 0,
        timeout: float | None = 30.0,  # noqa: ASYNC109 - callers of clients expect the name
    ) -> AsyncIterator[Analysis]:
        """Iterate over the analyses, newest first, with `async for`; pages are fetched as they are needed.

        Args:
            states: only analyses in these states; empty: all.
            page_size: how many to fetch at once, at most 1,000. 0: the server chooses.
            timeout: seconds, for each page.
        """
        request = make_list_request(states, page_size)
        while True:
            call = self._connection.analyses().ListAnalyses(
                request, timeout=timeout, metadata=self._connection.metadata
            )
            response = await self._connection.answer(call)
            for message in response.analyses:
                yield analysis_from_wire(message)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def _resumption(self, limit_s: float | None, timeout_s: float | None) -> Resumption:
        return Resumption(self._connection.contact, limit_s=limit_s, timeout_s=timeout_s)

    async def _begin(
        self, request: analysis_service_pb2.AnalyzeRequest, images: "list[ImageInput]", deadline_s: float | None
    ) -> AsyncCall:
        if images:
            await _put_images(request.config, images)
            images.clear()  # the call may be repeated, a file be read only once
        return self._connection.analyses().Analyze(request, timeout=deadline_s, metadata=self._connection.metadata)

    async def _wait_for_health(self) -> None:
        while True:
            if await self._watch_health():
                return
            await asyncio.sleep(_health.RETRY_S)

    async def _watch_health(self) -> bool:
        watch = self._connection.channel().unary_stream(
            _health.WATCH, _health.request_to_wire, _health.status_from_wire
        )
        call = watch("", wait_for_ready=True)
        try:
            async for status in call:
                self._connection.contact.made = True
                if status == _health.SERVING:
                    return True
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise from_call(error, self.address) from None
        finally:
            call.cancel()
        return False


async def _put_images(config: analysis_pb2.AnalysisConfig, images: list[ImageInput]) -> None:
    on_disk = not all(isinstance(image, bytes) for image in images)
    for data in await asyncio.to_thread(read_images, images) if on_disk else read_images(images):
        config.images.add(data=data)
