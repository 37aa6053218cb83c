"""The connection to the server: a channel, its stubs, and calls that end in an answer or a refusal."""

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import grpc
from google.rpc.code_pb2 import Code
from grpc_health.v1 import health_pb2

from mondrian.v1 import (
    advisor_service_pb2_grpc,
    analysis_service_pb2_grpc,
    model_service_pb2_grpc,
)
from mondrian.v1.analysis_service_pb2 import AnalyzeRequest, AnalyzeResponse
from mondrian.v1.model_service_pb2 import ListModelsRequest
from mondrian_server.gateway.refusals import Refusal, from_call, refusal

if TYPE_CHECKING:
    from mondrian.v1.advisor_service_pb2_grpc import AdvisorServiceAsyncStub
    from mondrian.v1.analysis_service_pb2_grpc import AnalysisServiceAsyncStub
    from mondrian.v1.model_service_pb2_grpc import ModelServiceAsyncStub

Metadata: TypeAlias = tuple[tuple[str, str], ...]

ANALYSIS_SERVICE = "mondrian.v1.AnalysisService"
_ANALYZE = f"/{ANALYSIS_SERVICE}/Analyze"
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_MAX_RECEIVE_BYTES = 64 * 1024 * 1024
_MAX_AUTHORIZATION_CHARACTERS = 4096
"""Well below the most that gRPC takes as metadata."""

_A = TypeVar("_A")


def open_channel(target: str, *, ca: bytes | None = None) -> grpc.aio.Channel:
    """Return a channel to `host:port` or `unix:path`; encrypted where `ca`, the certificates to trust, is given."""
    options: list[tuple[str, str | int]] = [
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),  # an analysis may be silent for long
        ("grpc.min_reconnect_backoff_ms", 2_000),  # gRPC's name for the least time given to a connect
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0),
        # Channels with the same options share connections otherwise, also with one that is being closed.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if ca is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca), options=options)


class Parcel:
    """The bytes of a request, until they are let go: gRPC keeps a request for as long as its call lasts.

    Clearing the message instead frees nothing: its memory goes with the last reference.
    """

    def __init__(self, message: AnalyzeRequest) -> None:
        """Hold what the message says; the message is not needed any more."""
        self.data = message.SerializeToString()

    def drop(self) -> None:
        """Let go of the bytes."""
        self.data = b""


class Connection:
    """The server as the gateway sees it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Use a channel, which whoever opened it closes."""
        self.analyses: AnalysisServiceAsyncStub = analysis_service_pb2_grpc.AnalysisServiceStub(channel)
        self.advisors: AdvisorServiceAsyncStub = advisor_service_pb2_grpc.AdvisorServiceStub(channel)
        self.models: ModelServiceAsyncStub = model_service_pb2_grpc.ModelServiceStub(channel)
        self._analyze: grpc.aio.UnaryStreamMultiCallable[Any, AnalyzeResponse] = channel.unary_stream(
            _ANALYZE,
            request_serializer=_data_of,
            response_deserializer=AnalyzeResponse.FromString,
        )
        self._check = channel.unary_unary(
            _HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    def analyze(self, parcel: Parcel, metadata: Metadata) -> "grpc.aio.UnaryStreamCall[Any, AnalyzeResponse]":
        """Call `Analyze`."""
        return self._analyze(parcel, metadata=metadata)

    async def ask_for_key(self, metadata: Metadata, *, timeout_s: float) -> None:
        """Have the server look at the caller's key, by the cheapest call that asks for one; raises Refusal."""
        await answer(self.models.ListModels(ListModelsRequest(page_size=1), metadata=metadata, timeout=timeout_s))

    async def is_serving(self, *, timeout_s: float) -> bool:
        """Ask the server's health whether it takes analyses."""
        call = self._check(health_pb2.HealthCheckRequest(service=ANALYSIS_SERVICE), timeout=timeout_s)
        try:
            response: health_pb2.HealthCheckResponse = await answer(call)
        except Refusal:
            return False
        return response.status == health_pb2.HealthCheckResponse.SERVING


def _data_of(parcel: Any) -> bytes:
    data: bytes = parcel.data
    return data


async def answer(call: Awaitable[_A]) -> _A:
    """Wait for the answer of a call; raises Refusal."""
    try:
        return await call
    except grpc.RpcError as error:
        raise from_call(error) from None


def caller_metadata(headers: Mapping[str, str]) -> Metadata:
    """Return what tells the server who calls: the caller's key, as it came. Raises Refusal where it can be none."""
    authorization = headers.get("authorization")
    if authorization is None:
        return ()
    is_sane = len(authorization) <= _MAX_AUTHORIZATION_CHARACTERS
    if not (is_sane and authorization.isascii() and authorization.isprintable()):
        raise refusal(401, Code.UNAUTHENTICATED, "UNAUTHENTICATED", "is no key", field="Authorization")
    return (("authorization", authorization),)
