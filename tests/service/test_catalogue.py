"""The catalogue: what can be asked, in which state it is, and the contract told by reflection."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from mondrian.v1 import advisor_service_pb2 as advisor_pb2
from mondrian.v1 import model_service_pb2 as model_pb2
from tests.checkpoints import EMBEDDED, parameters_of
from tests.service.calls import Running, refused, settings_for, started

SERVICES = {
    "mondrian.v1.AnalysisService",
    "mondrian.v1.AdvisorService",
    "mondrian.v1.ModelService",
    "grpc.health.v1.Health",
}
NEVER_READY = (sys.executable, "-c", "import time; time.sleep(600)")
BUF = Path(sys.executable).with_name("buf")
OWN_ADVISORS = """
[[advisors]]
id = "klee"
display_name = "Paul Klee"
description = "Takes a line for a walk."
instructions = "Follow the lines."
sampling = { temperature = 0.5, stop = ["."], seed = 0 }
"""


@pytest_asyncio.fixture(scope="module")
async def five(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A service with one more advisor than ships, whose model loads for as long as the tests take."""
    folder = tmp_path_factory.mktemp("data")
    own = folder / "advisors.toml"
    own.write_text(OWN_ADVISORS)
    settings = settings_for(folder, advisors_file=own, model_id="early")
    async with started(settings, engine_command=NEVER_READY, ready=False) as running:
        yield running


async def test_advisors_are_listed_in_the_order_of_their_ids(five: Running) -> None:
    """The three that ship and the operator's own, each with all that a caller wants to know."""
    listed = (await five.advisors.ListAdvisors(advisor_pb2.ListAdvisorsRequest())).advisors
    assert [advisor.name for advisor in listed] == [
        f"advisors/{id_}" for id_ in ("albers", "ansel", "klee", "mondrian")
    ]
    assert all(advisor.display_name and advisor.description and advisor.instructions for advisor in listed)
    klee = listed[2]
    assert (klee.display_name, klee.instructions) == ("Paul Klee", "Follow the lines.")
    assert list(klee.sampling.stop) == ["."]
    assert klee.sampling.temperature == 0.5
    assert klee.sampling.HasField("seed"), "0 is not unset"
    assert not klee.sampling.HasField("top_p")


async def test_advisors_come_in_pages(five: Running) -> None:
    """Pages of any size give all advisors, each once and in order, and the last page has no token."""
    whole = (await five.advisors.ListAdvisors(advisor_pb2.ListAdvisorsRequest())).advisors
    for size in (1, 2, 3, 4, 5):
        pages = [page async for page in advisor_pages(five, size)]
        assert [advisor for page in pages for advisor in page] == list(whole)
        assert all(len(page) == size for page in pages[:-1])
        assert len(pages) == -(-4 // size)


async def advisor_pages(up: Running, size: int) -> AsyncIterator[list[advisor_pb2.Advisor]]:
    """Yield page after page."""
    token = ""
    while True:
        request = advisor_pb2.ListAdvisorsRequest(page_size=size, page_token=token)
        response = await up.advisors.ListAdvisors(request)
        yield list(response.advisors)
        token = response.next_page_token
        if not token:
            return


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "next"}, "page_token"),
        ({"page_token": "-1"}, "page_token"),
        ({"page_token": "99"}, "page_token"),
        ({"page_token": "9" * 5_000}, "page_token"),
        ({"page_token": "²"}, "page_token"),
    ],
    ids=["negative size", "word", "negative", "beyond the end", "5,000 digits", "no ASCII digit"],
)
async def test_pages_that_cannot_be_are_refused(five: Running, fields: dict[str, Any], field: str) -> None:
    """A negative size, and a token that this server never gave, are INVALID_ARGUMENT."""
    for call in (
        five.advisors.ListAdvisors(advisor_pb2.ListAdvisorsRequest(**fields)),
        five.models.ListModels(model_pb2.ListModelsRequest(**fields)),
    ):
        outcome = await refused(call)
        assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
        assert outcome.message.startswith(f"{field}: ")


@pytest.mark.parametrize("method", ["AdvisorService/ListAdvisors", "ModelService/ListModels"])
async def test_a_page_token_that_is_not_utf_8_is_refused_by_name(five: Running, method: str) -> None:
    """Bytes that are not text in the request of a list are INVALID_ARGUMENT with the field."""
    call: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = five.channel.unary_unary(f"/mondrian.v1.{method}")
    outcome = await refused(call(b"\x12\x02\xc3\x28"))
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert outcome.message == "page_token: the text is not valid UTF-8"


async def test_a_model_that_is_not_there_is_not_found(five: Running) -> None:
    """GetModel of an unknown name is NOT_FOUND, and says which model there is."""
    for name in ("", "models/", "models/other", "early"):
        outcome = await refused(five.models.GetModel(model_pb2.GetModelRequest(name=name)))
        assert outcome.code is grpc.StatusCode.NOT_FOUND
        assert "models/early" in outcome.message


async def test_a_loaded_model_tells_its_facts(up: Running) -> None:
    """State, architecture, context, slots and sizes are those of the checkpoint and the settings."""
    model = (await up.models.GetModel(model_pb2.GetModelRequest(name="models/mondrian-tiny"))).model
    config = json.loads((EMBEDDED / "config.json").read_text())
    assert model.state == model_pb2.MODEL_STATE_READY
    assert model.architecture == config["model_type"]
    assert model.context_tokens == config["text_config"]["max_position_embeddings"]
    assert model.slots == 32
    assert model.queue_length == 0
    assert model.parameters == parameters_of(EMBEDDED)
    assert model.weights_bytes // model.parameters in (2, 4), "half or single precision, whatever the platform loads"
    assert model.quantization_bits == 0
    assert model.accepts_images
    assert model.peak_memory_bytes >= model.weights_bytes
    assert list((await up.models.ListModels(model_pb2.ListModelsRequest())).models) == [model]


async def test_a_model_that_loads_says_so(five: Running) -> None:
    """Before the engine is ready the model is listed as loading, without the facts of its checkpoint."""
    (model,) = (await five.models.ListModels(model_pb2.ListModelsRequest())).models
    assert model == model_pb2.Model(name="models/early", state=model_pb2.MODEL_STATE_LOADING)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services_and_gives_their_files(five: Running, version: str) -> None:
    """Both versions of reflection name every service, and give a file descriptor for each, and for what it imports."""
    ask = reflection_pb2.ServerReflectionRequest
    (listed,) = await reflected(five, version, ask(list_services=""))
    names = {service.name for service in listed.list_services_response.service}
    assert names >= SERVICES
    for name in SERVICES:
        (answer,) = await reflected(five, version, ask(file_containing_symbol=name))
        files = [FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]
        declared = {f"{file.package}.{service.name}" for file in files for service in file.service}
        assert name in declared
    (answer,) = await reflected(five, version, ask(file_by_filename="mondrian/v1/analysis.proto"))
    (data, *_) = answer.file_descriptor_response.file_descriptor_proto
    assert "Event" in {message.name for message in FileDescriptorProto.FromString(data).message_type}
    (answer,) = await reflected(five, version, ask(file_containing_symbol="mondrian.v1.Nothing"))
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def reflected(
    up: Running, version: str, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    """Return the answers of the reflection service."""
    call: grpc.aio.StreamStreamMultiCallable[Any, Any] = up.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [answer async for answer in call(iter(requests))]


async def test_buf_curl_streams_an_analysis_by_reflection(up: Running, picture: bytes) -> None:
    """A stranger's tool, which knows only the address, streams an analysis of a picture to its end."""
    image = base64.b64encode(picture).decode()
    request = {"config": {"prompt": "Hello", "images": [{"data": image}], "sampling": {"maxTokens": 5}}}
    curl = await asyncio.create_subprocess_exec(
        *(BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", "@-"),
        f"http://127.0.0.1:{up.service.port}/mondrian.v1.AnalysisService/Analyze",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(curl.communicate(json.dumps(request).encode()), 60)
    finally:
        if curl.returncode is None:
            curl.kill()
            await curl.wait()
    assert curl.returncode == 0, err.decode()
    events = [value["event"] for value in json_values(out.decode())]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert "accepted" in events[0]
    text = "".join(event["token"].get("text", "") for event in events if "token" in event)
    assert events[-1]["completed"].get("text", "") == text


def json_values(text: str) -> list[Any]:
    """Return the JSON values that stand one after the other in a text."""
    decoder, values, index = json.JSONDecoder(), list[Any](), 0
    while text[index:].strip():
        index += len(text[index:]) - len(text[index:].lstrip())
        value, index = decoder.raw_decode(text, index)
        values.append(value)
    return values
