"""Status: errors as rich gRPC statuses."""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mondrian_server.errors import MondrianError

DOMAIN = "mondrian"

_MAX_MESSAGE_CHARACTERS = 400
"""Statuses travel in trailers, twice and encoded, and clients refuse trailers of more than 8 KiB."""


def to_status(error: MondrianError) -> Status:
    """Return the `google.rpc.Status` with ErrorInfo, and BadRequest and RetryInfo where they apply."""
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN)]
    text = _shortened(error.message)
    if error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=text)
        details.append(BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(RetryInfo(retry_delay=delay))
    message = f"{error.field}: {text}" if error.field else text
    return Status(code=error.code.value, message=message, details=[_pack(detail) for detail in details])


def cancelled_status() -> Status:
    """Return the status of a call whose analysis was cancelled by somebody else."""
    return Status(code=1, message="the analysis was cancelled")


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE_CHARACTERS else text[: _MAX_MESSAGE_CHARACTERS - 1] + "…"


def _pack(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
