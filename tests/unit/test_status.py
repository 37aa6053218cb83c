"""Statuses: the details that each error brings."""

import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mondrian_server import errors
from mondrian_server.rpc.status import cancelled_status, to_status


def details(status: Status) -> list[Message]:
    """Return the unpacked details."""
    unpacked: list[Message] = []
    for packed in status.details:
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            detail = kind()
            if packed.Unpack(detail):
                unpacked.append(detail)
    assert len(unpacked) == len(status.details)
    return unpacked


def test_every_error_names_its_reason_and_domain() -> None:
    """An error without field or delay has ErrorInfo alone."""
    status = to_status(errors.GenerationFailed("the model raised"))
    assert (status.code, status.message) == (13, "the model raised")
    assert details(status) == [ErrorInfo(reason="GENERATION_FAILED", domain="mondrian")]


def test_a_field_at_fault_is_a_violation() -> None:
    """BadRequest names the field, and so does the message for people who see only that."""
    status = to_status(errors.InvalidImage("not an image", field="config.images[1].data"))
    violation = BadRequest.FieldViolation(field="config.images[1].data", description="not an image")
    assert details(status) == [
        ErrorInfo(reason="INVALID_IMAGE", domain="mondrian"),
        BadRequest(field_violations=[violation]),
    ]
    assert status.code == 3
    assert status.message == "config.images[1].data: not an image"


@pytest.mark.parametrize("delay_s", [0.0, 0.25, 1.5, 30.0])
def test_a_retry_has_its_delay(delay_s: float) -> None:
    """RetryInfo holds the seconds to the nanosecond, zero too."""
    status = to_status(errors.EngineUnavailable("gone", retry_after_s=delay_s))
    retry = details(status)[-1]
    assert isinstance(retry, RetryInfo)
    assert retry.retry_delay.ToNanoseconds() == int(delay_s * 1e9)


def test_a_long_message_is_shortened() -> None:
    """A status travels in trailers, which have little room."""
    status = to_status(errors.InvalidRequest("界" * 100_000, field="config.prompt"))
    assert status.ByteSize() < 4000
    assert status.message.endswith("…")


def test_a_cancelled_call_is_cancelled() -> None:
    """The code is CANCELLED."""
    assert cancelled_status().code == 1
