"""Invalid UTF-8: the field of a message that is at fault, wherever it stands."""

import pytest
from google.protobuf.message import DecodeError

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.rpc.utf8 import find_invalid_text

MARK = "\x01\x02MARK"
BAD = b"\x01\x02\xff\xfeRK"


def found(message: service_pb.AnalyzeRequest) -> str | None:
    """Return the field at fault once every mark in the message is replaced by bytes that are not UTF-8."""
    data = message.SerializeToString().replace(MARK.encode(), BAD)
    with pytest.raises(DecodeError):
        service_pb.AnalyzeRequest.FromString(data)
    return find_invalid_text(service_pb.AnalyzeRequest.DESCRIPTOR, data)


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (service_pb.AnalyzeRequest(request_id=MARK), "request_id"),
        (service_pb.AnalyzeRequest(config=pb.AnalysisConfig(prompt=MARK)), "config.prompt"),
        (service_pb.AnalyzeRequest(config=pb.AnalysisConfig(prompt="fine", model=MARK)), "config.model"),
        (service_pb.AnalyzeRequest(config=pb.AnalysisConfig(advisor=MARK)), "config.advisor"),
        (service_pb.AnalyzeRequest(config=pb.AnalysisConfig(instructions=MARK)), "config.instructions"),
        (
            service_pb.AnalyzeRequest(config=pb.AnalysisConfig(sampling=pb.Sampling(stop=["a", "b", MARK]))),
            "config.sampling.stop[2]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_path_of_the_text_is_found(message: service_pb.AnalyzeRequest, path: str) -> None:
    """Top fields, nested ones and items of repeated ones are named by their path."""
    assert found(message) == path


def test_the_first_of_several_is_named() -> None:
    """In the order of the field numbers."""
    config = pb.AnalysisConfig(prompt=MARK, sampling=pb.Sampling(stop=[MARK]))
    assert found(service_pb.AnalyzeRequest(config=config, request_id=MARK)) == "config.prompt"


def test_messages_in_repeated_fields_are_searched() -> None:
    """An item of a repeated message field is named with its index."""
    event = service_pb.AnalyzeResponse(event=pb.Event(failed=pb.Failed()))
    event.event.failed.error.details.add(type_url="fine")
    event.event.failed.error.details.add(type_url=MARK)
    data = event.SerializeToString().replace(MARK.encode(), BAD)
    path = find_invalid_text(service_pb.AnalyzeResponse.DESCRIPTOR, data)
    assert path == "event.failed.error.details[1].type_url"


def test_bytes_are_no_text() -> None:
    """An image may hold any bytes."""
    message = service_pb.AnalyzeRequest(config=pb.AnalysisConfig(images=[pb.Image(data=BAD)]))
    assert find_invalid_text(service_pb.AnalyzeRequest.DESCRIPTOR, message.SerializeToString()) is None


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x7f", b"garbage that is long enough"])
def test_what_is_no_message_has_no_field_at_fault(data: bytes) -> None:
    """Malformed bytes are not blamed on a text."""
    assert find_invalid_text(service_pb.AnalyzeRequest.DESCRIPTOR, data) is None


def test_valid_text_of_every_kind_is_fine() -> None:
    """Nothing is found where nothing is wrong."""
    message = service_pb.AnalyzeRequest(config=pb.AnalysisConfig(prompt="héllo 根據您的問題 💭\x00"))
    assert find_invalid_text(service_pb.AnalyzeRequest.DESCRIPTOR, message.SerializeToString()) is None
