"""Refusals: every way in which a request is not answered as asked, as an HTTP status and a `google.rpc.Status`."""

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mondrian_server.gateway.wire_json import to_dict

DOMAIN = "mondrian"
_DETAILS_KEY = "grpc-status-details-bin"
_NO_CONNECTION = ("failed to connect", "DNS resolution failed", "Connection refused", "Socket closed")
_DEFAULT_RETRY_S = 1.0
_MAX_MESSAGE_CHARACTERS = 400

HTTP_STATUS: Mapping[int, int] = {
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 409,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""The HTTP status of each code, after `google/rpc/code.proto`."""

HTTP_STATUS_OF_REASON: Mapping[str, int] = {
    "EVENTS_EXPIRED": 410,
    "REQUEST_ID_REUSED": 422,
}
"""The reasons for which HTTP has a better status than their code's."""

_M = TypeVar("_M", bound=Message)


class Refusal(Exception):
    """Ends a request with an HTTP status and a body that says why."""

    def __init__(self, http_status: int, status: Status):
        """Keep what the caller is told."""
        super().__init__(status.message)
        self.http_status = http_status
        self.status = status

    @property
    def reason(self) -> str:
        """The stable reason, or empty where gRPC itself ended the call."""
        info = _detail(self.status.details, ErrorInfo())
        return info.reason if info is not None else ""

    @property
    def retry_after_s(self) -> float | None:
        """The seconds after which a retry may help; None where it will not."""
        retry = _detail(self.status.details, RetryInfo())
        return None if retry is None else retry.retry_delay.ToNanoseconds() / 1e9

    @property
    def body(self) -> "dict[str, object]":
        """The JSON of the answer."""
        return {"error": to_dict(self.status)}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say the same to a client that does not read the body."""
        headers: dict[str, str] = {}
        delay_s = self.retry_after_s
        if delay_s is not None or self.http_status in (429, 503):
            headers["Retry-After"] = str(max(1, math.ceil(delay_s or _DEFAULT_RETRY_S)))
        if self.http_status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def refusal(
    http_status: int, code: Code.ValueType, reason: str, message: str, *, field: str = "", retry_s: float | None = None
) -> Refusal:
    """Return a refusal by the gateway itself, made as the server makes its own."""
    details: list[Message] = [ErrorInfo(reason=reason, domain=DOMAIN)]
    text = message if len(message) <= _MAX_MESSAGE_CHARACTERS else message[: _MAX_MESSAGE_CHARACTERS - 1] + "…"
    if field:
        details.append(BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=text)]))
        text = f"{field}: {text}"
    if retry_s is not None:
        details.append(_retry_info(retry_s))
    return Refusal(http_status, Status(code=code, message=text, details=[_pack(detail) for detail in details]))


def invalid(message: str, *, field: str = "") -> Refusal:
    """Return the refusal of a request that is malformed or out of range."""
    return refusal(400, Code.INVALID_ARGUMENT, "INVALID_REQUEST", message, field=field)


def leaving() -> Refusal:
    """Return the refusal of a gateway that is ending."""
    return refusal(503, Code.UNAVAILABLE, "SHUTTING_DOWN", "the gateway is ending", retry_s=_DEFAULT_RETRY_S)


def from_call(error: grpc.RpcError) -> Refusal:
    """Return the refusal that a call ended with."""
    status = _rich_status(error)
    if status is None:
        return _from_plain(error)
    return from_status(status)


def from_status(status: Status) -> Refusal:
    """Return the refusal that a rich status stands for."""
    info = _detail(status.details, ErrorInfo())
    reason = info.reason if info is not None else ""
    return Refusal(HTTP_STATUS_OF_REASON.get(reason, HTTP_STATUS.get(status.code, 500)), status)


def cancelled() -> Refusal:
    """Return the refusal of a result that will never be, because somebody cancelled its analysis."""
    return refusal(499, Code.CANCELLED, "CANCELLED", "the analysis was cancelled")


def is_unreached(error: Refusal) -> bool:
    """Tell whether gRPC itself ended the call, because the server was not reached or was lost."""
    return error.reason == "SERVER_UNREACHABLE"


def _from_plain(error: grpc.RpcError) -> Refusal:
    """Return the refusal of a call that gRPC itself ended; its words may name addresses and stay inside."""
    code, details = error.code(), error.details() or ""
    match code:
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in details:
            return too_large("the request is larger than the server takes")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return refusal(504, Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the server did not answer in time")
        case grpc.StatusCode.UNIMPLEMENTED:
            return refusal(501, Code.UNIMPLEMENTED, "UNIMPLEMENTED", "the server does not offer this")
        case _ if _is_lost(code, details):
            message = "the server cannot be reached at present"
            return refusal(503, Code.UNAVAILABLE, "SERVER_UNREACHABLE", message, retry_s=_DEFAULT_RETRY_S)
        case _:
            number = cast("tuple[int, str]", code.value)[0]
            return Refusal(HTTP_STATUS.get(number, 500), Status(code=number, message=details or code.name))


def too_large(message: str) -> Refusal:
    """Return the refusal of a body that is larger than the limit."""
    return refusal(413, Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", message)


def _is_lost(code: grpc.StatusCode, details: str) -> bool:
    """Tell whether the call was cut off. A server that is stopped may end its calls with a bare CANCELLED."""
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return True
    return "RST_STREAM" in details or "Stream removed" in details or details.startswith(_NO_CONNECTION)


def _rich_status(error: grpc.RpcError) -> Status | None:
    # Pairs at run time; the stubs of grpc and grpc.aio disagree.
    metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                return Status.FromString(value)
    return None


def _detail(details: Iterable[Any], message: _M) -> _M | None:
    return message if any(detail.Unpack(message) for detail in details) else None


def _retry_info(delay_s: float) -> RetryInfo:
    delay = Duration()
    delay.FromNanoseconds(int(delay_s * 1e9))
    return RetryInfo(retry_delay=delay)


def _pack(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
