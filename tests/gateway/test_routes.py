"""Routes: what each of them does, on a real service."""

import base64
import re
import uuid
from typing import Any

import pytest
from google.api.annotations_pb2 import http as http_rule

from mondrian.v1 import advisor_service_pb2, analysis_service_pb2, model_service_pb2
from tests.conditions import eventually
from tests.gateway.conftest import Served
from tests.gateway.face import PICTURE, Face, error_of

RED_CIRCLE = "A large red circle stands at the middle centre."


async def test_a_form_creates_an_analysis(face: Face, picture: bytes) -> None:
    """POST /v1/analyses takes a file and a prompt, answers 201 with the resource, and the answer is right."""
    files = {"image": ("photo.png", picture, "image/png")}
    response = await face.http.post("/v1/analyses", files=files, data={"prompt": "Describe this image."})
    assert response.status_code == 201
    analysis = response.json()
    assert response.headers["location"] == f"/v1/{analysis['name']}"
    assert (analysis["config"]["prompt"], analysis["imageCount"]) == ("Describe this image.", 1)
    stream = await face.follow(analysis["name"])
    stream.assert_whole()
    assert RED_CIRCLE in stream.text
    ended = await face.get(analysis["name"])
    assert (ended["state"], ended["text"]) == ("ANALYSIS_STATE_COMPLETED", stream.text)


async def test_json_creates_the_same_analysis(face: Face, picture: bytes) -> None:
    """Base64 in either alphabet, names in either case: the contract's own JSON is taken."""
    for encode, name in ((base64.b64encode, "maxTokens"), (base64.urlsafe_b64encode, "max_tokens")):
        config = {"prompt": "Describe this image.", "images": [{"data": encode(picture).decode()}]}
        stream = await face.analyze(config | {"sampling": {name: 30}})
        stream.assert_whole()
        assert RED_CIRCLE in stream.text
        assert stream.events[0].data["accepted"]["sampling"]["maxTokens"] == 30


async def test_a_form_holds_its_config_as_json(face: Face, picture: bytes) -> None:
    """What has no field of its own stands in `config`; several images are several parts, in their order."""
    response = await face.http.post(
        "/v1/analyze",
        files=[("image", ("a", picture)), ("image", ("b", picture))],
        data={"config": '{"sampling": {"maxTokens": 3}}', "advisor": "ansel"},
        headers={"Accept": "application/json"},
    )
    assert response.status_code == 200, response.text
    analysis = response.json()
    assert (analysis["imageCount"], analysis["config"]["advisor"]) == (2, "advisors/ansel")
    assert analysis["completed"]["finishReason"] == "FINISH_REASON_MAX_TOKENS"
    assert analysis["completed"]["usage"]["outputTokens"] == 3


async def test_a_whole_result_in_one_request(face: Face, picture: bytes) -> None:
    """POST /v1/analyze answers with the finished analysis when the caller asks for JSON."""
    response = await face.http.post(
        "/v1/analyze",
        files={"image": picture},
        data={"prompt": "Describe this image."},
        headers={"Accept": "application/json"},
    )
    assert response.status_code == 200
    assert RED_CIRCLE in response.json()["text"]
    assert response.headers["content-location"] == f"/v1/{response.json()['name']}"


async def test_the_same_key_is_the_same_analysis(face: Face) -> None:
    """An Idempotency-Key that comes again attaches; with another body it is refused."""
    key = str(uuid.uuid4())
    config = {"prompt": "Which colour dominates?"}
    names = {await face.create(config, **{"Idempotency-Key": key}) for _ in range(3)}
    assert len(names) == 1
    assert (await face.get(names.pop()))["requestId"] == key
    other = await face.http.post(
        "/v1/analyses", json={"config": {"prompt": "Another one."}}, headers={"Idempotency-Key": key}
    )
    assert error_of(other) == (422, "REQUEST_ID_REUSED")


async def test_a_list_in_pages(face: Face) -> None:
    """GET /v1/analyses gives the newest first, in pages, of the states that were asked for."""
    names = [await face.create({"prompt": f"Question {number}."}) for number in range(3)]
    for name in names:
        await face.follow(name)
    listed: list[str] = []
    token = ""
    for _ in range(2):
        parameters = {"pageSize": "2", "pageToken": token, "states": "COMPLETED"}
        page = (await face.http.get("/v1/analyses", params=parameters)).json()
        listed += [analysis["name"] for analysis in page["analyses"]]
        token = page["nextPageToken"]
    assert listed[:3] == names[::-1]
    others = await face.http.get("/v1/analyses", params={"states": ["ANALYSIS_STATE_FAILED", "CANCELLED"]})
    assert not {one["name"] for one in others.json()["analyses"]} & set(names)


async def test_a_cancel_frees_the_slot(served: Served) -> None:
    """POST …:cancel ends a running analysis: its stream tells, and the service holds nothing of it any more."""
    face = served.face
    name = await face.create({"prompt": "Describe it.", "sampling": {"minTokens": 3000, "maxTokens": 3000}})
    active = await face.http.delete(f"/v1/{name}")
    assert error_of(active) == (409, "ANALYSIS_ACTIVE")
    cancelled = await face.http.post(f"/v1/{name}:cancel", json={})
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "ANALYSIS_STATE_CANCELLED")
    assert (await face.follow(name)).events[-1].event == "cancelled"
    await eventually(lambda: served.running.held == (0, 0, 0, 0))
    again = await face.http.post(f"/v1/{name}:cancel")
    assert again.json()["state"] == "ANALYSIS_STATE_CANCELLED"


async def test_a_deleted_analysis_is_gone(face: Face) -> None:
    """DELETE answers 204, and then there is none of that name."""
    name = await face.create({"prompt": "Hello."})
    await face.follow(name)
    assert (await face.http.delete(f"/v1/{name}")).status_code == 204
    for path in (f"/v1/{name}", f"/v1/{name}/events"):
        assert error_of(await face.http.get(path)) == (404, "ANALYSIS_NOT_FOUND")
    assert error_of(await face.http.delete(f"/v1/{name}")) == (404, "ANALYSIS_NOT_FOUND")


async def test_what_can_be_asked_for(face: Face) -> None:
    """GET /v1/advisors and /v1/models tell it; one model is found by its name."""
    advisors = (await face.http.get("/v1/advisors")).json()["advisors"]
    assert {"advisors/albers", "advisors/ansel", "advisors/mondrian"} <= {one["name"] for one in advisors}
    (model,) = (await face.http.get("/v1/models")).json()["models"]
    assert (model["name"], model["state"]) == ("models/mondrian-tiny", "MODEL_STATE_READY")
    assert int(model["parameters"]) > 1_000_000, "64-bit integers are strings"
    assert (await face.http.get("/v1/models/mondrian-tiny")).json()["name"] == model["name"]
    assert error_of(await face.http.get("/v1/models/none")) == (404, "MODEL_NOT_FOUND")


async def test_operation(face: Face) -> None:
    """The gateway says that it lives and is ready, and shows the metrics of the service."""
    assert (await face.http.get("/healthz")).json() == {"status": "alive"}
    assert (await face.http.get("/readyz")).json() == {"status": "ready"}
    metrics = await face.http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    assert "mondrian_build_info" in metrics.text


async def test_the_page_and_the_samples(face: Face, picture: bytes) -> None:
    """The page is served at the root and sample pictures beside it; a browser may load nothing from elsewhere."""
    page = await face.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert (await face.http.get(f"/samples/{PICTURE.name}")).content == picture
    assert error_of(await face.http.get("/samples/none.png")) == (404, "NO_SUCH_ROUTE")


async def test_the_document_for_people_needs_no_other_host(face: Face) -> None:
    """GET /docs shows every route and message, and names no other host."""
    page = await face.http.get("/docs")
    document = (await face.http.get("/openapi.json")).json()
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page.text)
    assert "<script" not in page.text
    assert (await face.http.get("/docs/style.css")).headers["content-type"].startswith("text/css")


@pytest.mark.parametrize(
    ("service", "file"),
    [
        ("AnalysisService", analysis_service_pb2),
        ("AdvisorService", advisor_service_pb2),
        ("ModelService", model_service_pb2),
    ],
    ids=["analyses", "advisors", "models"],
)
async def test_the_routes_are_those_of_the_contract(face: Face, service: str, file: object) -> None:
    """Each google.api.http annotation of the contract is a route of the gateway, and the other way round."""
    document = (await face.http.get("/openapi.json")).json()
    routes = {
        f"{method} {re.sub('{id}', '*', path)}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    descriptor = vars(file)["DESCRIPTOR"].services_by_name[service]
    for method in descriptor.methods:
        rule = method.GetOptions().Extensions[http_rule]
        verb = rule.WhichOneof("pattern")
        path = re.sub(r"{name=([^}]*)}", r"\1", getattr(rule, verb))
        operation = routes[f"{verb} {path}"]
        body = method.output_type.fields_by_name.get(rule.response_body)
        told = body.message_type if body is not None else method.output_type
        assert told.name in (*answers_of(operation), "Event", "DeleteAnalysisResponse"), method.full_name


def answers_of(operation: dict[str, Any]) -> set[str]:
    """Return the names of the messages with which a route answers what it was asked."""
    answers = [operation["responses"][status] for status in ("200", "201") if status in operation["responses"]]
    schemas = [kind["schema"] for answer in answers for kind in answer["content"].values()]
    return {schema["$ref"].rpartition("/")[2] for schema in schemas if "$ref" in schema}


async def test_an_analysis_of_grpc_is_one_of_http(served: Served) -> None:
    """Both faces show the same resource."""
    name = await served.face.create({"prompt": "Hello."})
    await served.face.follow(name)
    got = await served.running.get(name)
    assert got.text == (await served.face.get(name))["text"]
