"""The Swift example, which nobody compiles here: every name in it is the service's, and what it decodes is sent."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from httpx_sse import aconnect_sse

from mondrian.v1 import analysis_pb2 as pb
from tests.service.calls import Running

SOURCE = (Path(__file__).parents[2] / "clients" / "examples" / "ios" / "MondrianClient.swift").read_text()
CODE = "\n".join(line for line in SOURCE.splitlines() if not line.lstrip().startswith("//"))

MESSAGES: Mapping[str, Any] = {
    "AnalysisConfig": pb.AnalysisConfig,
    "Sampling": pb.Sampling,
    "Delivery": pb.Delivery,
    "AnalysisEvent": pb.Event,
    "Accepted": pb.Accepted,
    "AnalysisProgress": pb.Progress,
    "Token": pb.Token,
    "Completed": pb.Completed,
    "Failed": pb.Failed,
    "Cancelled": pb.Cancelled,
    "Usage": pb.Usage,
    "Analysis": pb.Analysis,
    "Status": Status,
}
"""What each struct of the file stands for."""

TYPES = {
    FieldDescriptor.TYPE_STRING: "String",
    FieldDescriptor.TYPE_INT32: "Int",
    FieldDescriptor.TYPE_UINT32: "UInt32",
    FieldDescriptor.TYPE_INT64: "String",
    FieldDescriptor.TYPE_FLOAT: "Double",
    FieldDescriptor.TYPE_BOOL: "Bool",
    FieldDescriptor.TYPE_ENUM: "String",
}
"""The Swift type that proto3 JSON gives."""


@pytest_asyncio.fixture(scope="module")
async def document(up: Running) -> dict[str, Any]:
    """The OpenAPI document of a running gateway."""
    async with client(up) as http:
        return (await http.get("/openapi.json")).json()


def client(up: Running) -> httpx.AsyncClient:
    """Return an HTTP client of the gateway."""
    assert up.service.gateway is not None
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{up.service.gateway.port}", timeout=60)


def structs() -> dict[str, dict[str, str]]:
    """Return the stored properties of every public struct that is encoded or decoded, with their types."""
    found: dict[str, dict[str, str]] = {}
    for name, body in re.findall(r"^public struct (\w+): (?:En|De)codable, Sendable \{\n(.*?)^\}", CODE, re.M | re.S):
        found[name] = dict(re.findall(r"^    public (?:let|var) (\w+): ([\w\[\]?]+)$", body, re.M))
    return found


def swift_type(field: FieldDescriptor) -> str:
    """Return the type that a field's JSON has in Swift."""
    if field.message_type is not None:
        names = {kind.DESCRIPTOR.full_name: name for name, kind in MESSAGES.items()}
        known = {"google.protobuf.Duration": "String", "google.protobuf.Any": "Detail"}
        one = known.get(field.message_type.full_name) or names.get(field.message_type.full_name, "?")
    else:
        one = TYPES[field.type]
    return f"[{one}]" if field.is_repeated else one


def test_every_property_is_a_field_of_its_message() -> None:
    """The names are those of proto3 JSON, and the types those that it gives."""
    assert structs().keys() == MESSAGES.keys()
    for name, properties in structs().items():
        descriptor: Descriptor = MESSAGES[name].DESCRIPTOR
        fields = {field.json_name: field for field in descriptor.fields}
        for label, kind in properties.items():
            if (name, label) == ("AnalysisEvent", "payload"):
                continue
            assert label in fields, f"{name}.{label}"
            assert kind.removesuffix("?") == swift_type(fields[label]), f"{name}.{label}"


def test_every_event_is_one_of_the_stream_and_none_is_missing() -> None:
    """The cases of the payload are the events of the contract; a newer one is `other`."""
    oneof = {field.json_name for field in pb.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    cases = re.findall(r"^        case (\w+)\((\w+)\)$", CODE, re.M)
    assert {case for case, _ in cases} == oneof
    for case, kind in cases:
        assert MESSAGES[kind] is not None
        assert f"values.decode({kind}.self, forKey: .{case})" in CODE
        assert pb.Event.DESCRIPTOR.fields_by_name[case].message_type is MESSAGES[kind].DESCRIPTOR
    keys = set(re.findall(r"\w+", " ".join(re.findall(r"^        case ((?:\w+, )+\w+)$", CODE, re.M))))
    assert keys - {"completed", "failed", "cancelled"} >= oneof - {"completed", "failed", "cancelled"}


def test_details_and_constants_exist() -> None:
    """What the file reads of an error's details is in them, and the constants that it names are real."""
    assert ErrorInfo.DESCRIPTOR.fields_by_name["reason"].json_name == "reason"
    assert RetryInfo.DESCRIPTOR.fields_by_name["retry_delay"].json_name == "retryDelay"
    assert re.findall(r"^        public let (\w+): String\?$", CODE, re.M) == ["reason", "retryDelay"]
    enums = (pb.Stage, pb.FinishReason, pb.AnalysisState)
    constants = {name for enum in enums for name in list(enum.keys())}
    named = set(re.findall(r"\b(?:STAGE|FINISH_REASON|ANALYSIS_STATE)_[A-Z_]+\b", SOURCE))
    assert named
    assert named <= constants


def test_every_route_header_and_form_field_is_in_the_document(document: dict[str, Any]) -> None:
    """Methods and paths, the headers of requests and answers, and the parts of the form are those of OpenAPI."""
    routes = re.findall(r'makeRequest\("([^"]+)"(?:, method: "(\w+)")?\)', CODE)
    asked = {(method.lower() or "get", "/" + path.replace(r"\(name)", "analyses/{id}")) for path, method in routes}
    offered = {(method, path) for path, operations in document["paths"].items() for method in operations}
    assert asked == {
        ("post", "/v1/analyses"),
        ("get", "/v1/analyses/{id}"),
        ("delete", "/v1/analyses/{id}"),
        ("get", "/v1/analyses/{id}/events"),
        ("post", "/v1/analyses/{id}:cancel"),
    }
    assert asked <= offered
    create = document["paths"]["/v1/analyses"]["post"]
    follow = document["paths"]["/v1/analyses/{id}/events"]["get"]
    assert {"Idempotency-Key"} <= parameters(create) & sent_headers()
    assert {"Last-Event-ID"} <= parameters(follow) & sent_headers()
    assert sent_headers() <= {"Accept", "Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"}
    form = create["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(re.findall(r'part\("name=\\"(\w+)\\"', CODE)) == {"config", "image"} <= form.keys()
    assert "204" in follow["responses"]


def parameters(operation: Mapping[str, Any]) -> set[str]:
    """Return the names of an operation's parameters."""
    return {parameter["name"] for parameter in operation["parameters"]}


def sent_headers() -> set[str]:
    """Return the headers that the file sets."""
    return set(re.findall(r'setValue\([^\n]+, forHTTPHeaderField: "([\w-]+)"\)', CODE))


async def test_what_it_decodes_is_there_in_real_events(up: Running, picture: bytes) -> None:
    """Whatever is not optional in a struct is in every event of a completed, a failed and a cancelled analysis."""
    config = {"prompt": "Describe this image.", "sampling": {"maxTokens": 12, "seed": 1}, "delivery": {}}
    endless = config | {"sampling": {"minTokens": 900, "maxTokens": 900}, "timeLimit": "60s"}
    seen: set[str] = set()
    async with client(up) as http:
        for data, body, cancels in (
            (picture, config, False),
            (b"bad", config, False),
            (None, endless, True),
        ):
            files = [("config", (None, json.dumps(body), "application/json"))]
            files += [("image", ("image-0", data, "application/octet-stream"))] if data else []
            answer = await http.post("/v1/analyses", files=files)
            assert answer.status_code == 201, answer.text
            complete("Analysis", answer.json())
            name = answer.json()["name"]
            if cancels:
                complete("Analysis", (await http.post(f"/v1/{name}:cancel")).json())
            async with aconnect_sse(http, "GET", f"/v1/{name}/events") as stream:
                async for message in stream.aiter_sse():
                    complete("AnalysisEvent", message.json(), leaving_out="payload")
                    kind = {"progress": "AnalysisProgress"}.get(message.event, message.event.capitalize())
                    complete(kind, message.json()[message.event])
                    seen.add(message.event)
    assert seen == {"accepted", "progress", "token", "completed", "failed", "cancelled"}


def complete(struct: str, values: Mapping[str, Any], *, leaving_out: str = "") -> None:
    """Check that a struct can be decoded from JSON: what is not optional is there, and of its type."""
    for label, kind in structs()[struct].items():
        if label == leaving_out or (kind.endswith("?") and label not in values):
            continue
        assert label in values, f"{struct}.{label}"
        check_type(kind.removesuffix("?"), values[label], f"{struct}.{label}")


def check_type(kind: str, value: Any, place: str) -> None:
    """Check that a JSON value decodes as a Swift type."""
    match kind:
        case "String":
            assert isinstance(value, str), place
        case "Int":
            assert isinstance(value, int), place
        case "Double":
            assert isinstance(value, int | float), place
        case "Usage" | "Status":
            complete(kind, value)
        case _:
            assert isinstance(value, list), place


def test_the_file_says_that_nobody_compiled_it() -> None:
    """Whoever takes it knows; brackets match all the same."""
    assert "NOT COMPILED HERE" in SOURCE.partition("import Foundation")[0]
    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', re.sub(r"//[^\n]*", "", SOURCE))
    for left, right in ("()", "[]", "{}"):
        assert bare.count(left) == bare.count(right), left
