"""gRPC's errors to ours: the one place that reads status codes and their details."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from mondrian._convert import stage_from_wire, timings_from_wire, usage_from_wire
from mondrian._errors import AnalysisCancelled, ConnectionFailed, FieldViolation, MondrianError, error_class
from mondrian.v1 import analysis_pb2

_DOMAIN = "mondrian"
_DETAILS_KEY = "grpc-status-details-bin"
"""Where gRPC carries the `google.rpc.Status`."""

_M = TypeVar("_M", bound=Message)


def from_call(error: grpc.RpcError, address: str, *, connected: bool = False) -> MondrianError:
    """Return the error that a call ended with; `connected` tells whether the server had answered already."""
    status = _rich_status(error)
    if status is not None and status.details:
        return from_status(status)
    code = error.code().name
    if code == "UNAVAILABLE":
        where = f"the connection to {address} was lost" if connected else f"no server answers at {address}"
        return ConnectionFailed(f"{where}: {error.details() or code}")
    return error_class(code, "")(_sentence(code, error.details() or code, address), code=code)


def _sentence(code: str, details: str, address: str) -> str:
    """Put what gRPC itself says (1.76 to 1.85) in words for people; a server's own sentence stays."""
    match code:
        case "DEADLINE_EXCEEDED" if "Deadline Exceeded" in details:
            return "the deadline passed before the call was complete"
        case "RESOURCE_EXHAUSTED" if "larger than max" in details:
            return f"the request is larger than the server at {address} takes: {details}"
        case "UNIMPLEMENTED":
            return f"the server at {address} does not offer this: {details}"
        case _:
            return details


def from_status(status: status_pb2.Status) -> MondrianError:
    """Return the error that a `google.rpc.Status` with details tells."""
    code = code_pb2.Code.Name(status.code) if status.code in code_pb2.Code.values() else "UNKNOWN"
    info = _detail(status.details, error_details_pb2.ErrorInfo())
    reason = info.reason if info is not None and info.domain == _DOMAIN else ""
    return error_class(code, reason)(
        status.message or reason or code,
        code=code,
        reason=reason,
        field_violations=_violations(status.details),
        retry_after_s=_retry_after_s(status.details),
    )


def from_failed(message: analysis_pb2.Failed) -> MondrianError:
    """Return the error that the end of an analysis tells."""
    error = from_status(message.error)
    error.usage = usage_from_wire(message.usage)
    error.timings = timings_from_wire(message.timings)
    return error


def from_cancelled(message: analysis_pb2.Cancelled) -> AnalysisCancelled:
    """Return the error that stands for a cancelled analysis."""
    error = AnalysisCancelled(
        "the analysis was cancelled",
        usage=usage_from_wire(message.usage),
        timings=timings_from_wire(message.timings),
    )
    error.stage = stage_from_wire(message.stage)
    return error


def _rich_status(error: grpc.RpcError) -> status_pb2.Status | None:
    # Pairs at run time, in both flavours of gRPC; their stubs disagree.
    metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):  # malformed: the plain status counts
                return status_pb2.Status.FromString(value)
    return None


def _detail(details: Sequence[Any], message: _M) -> _M | None:
    return message if any(detail.Unpack(message) for detail in details) else None


def _violations(details: Sequence[Any]) -> tuple[FieldViolation, ...]:
    bad = _detail(details, error_details_pb2.BadRequest())
    if bad is None:
        return ()
    return tuple(FieldViolation(field=v.field, description=v.description) for v in bad.field_violations)


def _retry_after_s(details: Sequence[Any]) -> float | None:
    retry = _detail(details, error_details_pb2.RetryInfo())
    if retry is None:
        return None
    return retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
