"""Registration: every error of a handler, and every request that cannot be parsed, leaves as a rich status."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from structlog.testing import capture_logs

from mondrian.v1 import advisor_service_pb2 as advisor_pb
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.errors import EngineUnavailable, InvalidRequest
from mondrian_server.rpc.reception import Context
from mondrian_server.rpc.registration import StatusError, register
from mondrian_server.rpc.server import ADVISOR_SERVICE, ANALYSIS_SERVICE
from mondrian_server.rpc.status import cancelled_status
from tests.conditions import eventually

ANALYZE = "/mondrian.v1.AnalysisService/Analyze"
LIST_ADVISORS = "/mondrian.v1.AdvisorService/ListAdvisors"
ANSWER = advisor_pb.ListAdvisorsResponse(next_page_token="next")


class Servicer:
    """Does what the prompt, or the page token, says."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self.waiting = 0
        self.cancelled = 0

    async def Analyze(self, request: service_pb.AnalyzeRequest, context: Context) -> None:  # gRPC's name
        """Write one event, then end as told."""
        await context.write(service_pb.AnalyzeResponse(event=pb.Event(sequence=1)))
        await self._obey(request.config.prompt)

    async def ListAdvisors(  # gRPC's name
        self, request: advisor_pb.ListAdvisorsRequest, _: Context
    ) -> advisor_pb.ListAdvisorsResponse:
        """Give the answer, or end as told."""
        await self._obey(request.page_token)
        return ANSWER

    # Nobody calls these here, but a service is registered with all of its methods.
    CreateAnalysis = WatchAnalysis = GetAnalysis = ListAnalyses = CancelAnalysis = DeleteAnalysis = ListAdvisors

    async def _obey(self, order: str) -> None:
        match order:
            case "invalid":
                raise InvalidRequest("must be more", field="config.sampling.top_p")
            case "lost":
                raise EngineUnavailable("the engine was lost", retry_after_s=1.5)
            case "long":
                raise InvalidRequest("界" * 100_000, field="config.prompt")
            case "cancelled":
                raise StatusError(cancelled_status())
            case "bug":
                raise RuntimeError("the secret of the house")
            case "wait":
                await self._wait()
            case _:
                pass

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1


class Line:
    """A server on a free port with the servicer on it, and a channel that sends bare bytes."""

    def __init__(self, channel: grpc.aio.Channel, servicer: Servicer) -> None:
        """Hold an open channel."""
        self.servicer = servicer
        self.analyze: Any = channel.unary_stream(ANALYZE, response_deserializer=service_pb.AnalyzeResponse.FromString)
        self.list_advisors: Any = channel.unary_unary(
            LIST_ADVISORS, response_deserializer=advisor_pb.ListAdvisorsResponse.FromString
        )

    async def error_of(self, request: bytes | Message, *, unary: bool = False) -> grpc.aio.AioRpcError:
        """Make a call that must fail, and return its error."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            if unary:
                await self.list_advisors(data, timeout=10)
            else:
                async for _ in self.analyze(data, timeout=10):
                    pass
        return caught.value


@pytest_asyncio.fixture
async def line() -> AsyncGenerator[Line]:
    """Return a line to a running server."""
    servicer = Servicer()
    server = grpc.aio.server()
    register(server, ANALYSIS_SERVICE, servicer)
    register(server, ADVISOR_SERVICE, servicer)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Line(channel, servicer)
    finally:
        await server.stop(None)


def asking(prompt: str) -> service_pb.AnalyzeRequest:
    """Return a request that gives an order to the servicer."""
    return service_pb.AnalyzeRequest(config=pb.AnalysisConfig(prompt=prompt))


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """Return the details of a status by the name of their type."""
    status: Status | None = vars(rpc_status)["from_call"](error)  # grpcio-status carries no types
    assert status is not None, "there is no rich status"
    found: dict[str, Any] = {}
    for packed in status.details:
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            detail = kind()
            if packed.Unpack(detail):
                found[kind.__name__] = detail
    return found


async def test_a_handler_that_returns_ends_the_call_ok(line: Line) -> None:
    """Streams and single answers arrive."""
    events = [response.event.sequence async for response in line.analyze(asking("fine").SerializeToString())]
    assert events == [1]
    assert await line.list_advisors(b"") == ANSWER


@pytest.mark.parametrize("unary", [True, False])
async def test_a_mondrian_error_becomes_its_status(line: Line, unary: bool) -> None:
    """Code, reason and field arrive, in streams and single answers."""
    request = advisor_pb.ListAdvisorsRequest(page_token="invalid") if unary else asking("invalid")
    error = await line.error_of(request, unary=unary)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(error)["ErrorInfo"] == ErrorInfo(reason="INVALID_REQUEST", domain="mondrian")
    assert details(error)["BadRequest"].field_violations[0].field == "config.sampling.top_p"


async def test_a_retry_delay_arrives(line: Line) -> None:
    """UNAVAILABLE brings RetryInfo."""
    error = await line.error_of(asking("lost"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert details(error)["RetryInfo"].retry_delay.ToMilliseconds() == 1500


async def test_an_error_with_a_very_long_message_arrives(line: Line) -> None:
    """The trailers stay below what clients accept."""
    error = await line.error_of(asking("long"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(error)["ErrorInfo"].reason == "INVALID_REQUEST"


async def test_a_ready_made_status_is_sent_as_it_is(line: Line) -> None:
    """A handler may end with a status of its own."""
    error = await line.error_of(asking("cancelled"))
    assert error.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("unary", [True, False])
async def test_an_unexpected_exception_tells_nothing_of_the_inside(line: Line, unary: bool) -> None:
    """The caller gets INTERNAL with its reason; what happened stands in the server's log."""
    request = advisor_pb.ListAdvisorsRequest(page_token="bug") if unary else asking("bug")
    with capture_logs() as lines:
        error = await line.error_of(request, unary=unary)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert details(error)["ErrorInfo"].reason == "INTERNAL"
    assert "secret" not in str(error.details())
    assert [entry["log_level"] for entry in lines] == ["error"]
    assert "secret" in lines[0]["error"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asking("MARK"), "config.prompt"),
        (service_pb.AnalyzeRequest(request_id="MARK"), "request_id"),
        (
            service_pb.AnalyzeRequest(config=pb.AnalysisConfig(sampling=pb.Sampling(stop=["x", "MARK"]))),
            "config.sampling.stop[1]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_text_that_is_not_utf8_is_refused_by_its_field(
    line: Line, request_: service_pb.AnalyzeRequest, field: str
) -> None:
    """The generated code would answer INTERNAL; here the field is named."""
    error = await line.error_of(request_.SerializeToString().replace(b"MARK", b"\xff\xfe\xfd\xfc"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(error)["BadRequest"].field_violations[0].field == field
    assert "UTF-8" in str(error.details())


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x7fshort", b"\x0b" * 1000])
@pytest.mark.parametrize("unary", [True, False])
async def test_what_is_no_message_is_refused(line: Line, data: bytes, unary: bool) -> None:
    """Malformed bytes are INVALID_ARGUMENT without a field, and the server goes on."""
    error = await line.error_of(data, unary=unary)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(details(error)) == ["ErrorInfo"]
    assert await line.list_advisors(b"") == ANSWER


async def test_deep_nesting_is_refused(line: Line) -> None:
    """A message of thousands of levels costs nothing but its answer."""
    data = b""
    for _ in range(200):
        data = b"\x0b" + data + b"\x0c"
    assert (await line.error_of(data)).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("unary", [True, False])
async def test_a_caller_that_goes_away_cancels_its_handler_in_silence(line: Line, unary: bool) -> None:
    """The handler sees CancelledError, cleans up, and nothing is logged as a defect."""
    with capture_logs() as lines:
        if unary:
            call = line.list_advisors(advisor_pb.ListAdvisorsRequest(page_token="wait").SerializeToString())
        else:
            call = line.analyze(asking("wait").SerializeToString())
        await eventually(lambda: line.servicer.waiting == 1)
        call.cancel()
        await eventually(lambda: line.servicer.cancelled == 1)
    assert line.servicer.waiting == 0
    assert lines == []


async def test_a_deadline_cancels_the_handler(line: Line) -> None:
    """The call ends DEADLINE_EXCEEDED, and the handler does not go on."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in line.analyze(asking("wait").SerializeToString(), timeout=0.5):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: line.servicer.waiting == 0 and line.servicer.cancelled == 1)
