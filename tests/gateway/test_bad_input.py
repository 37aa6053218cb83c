"""Bad input: every request that is wrong is told what is wrong with it, by its status and its reason."""

import base64
import json

import grpc
import httpx
import pytest

from tests.client.scripted_server import ScriptedServer, rich_status
from tests.gateway.conftest import Served
from tests.gateway.face import Face, error_of, field_of, standing_alone

MEBIBYTE = 1024 * 1024
FORM = "multipart/form-data; boundary=edge"


def form(*parts: tuple[str, bytes], end: bytes = b"--edge--\r\n") -> bytes:
    """Return a multipart body of named parts, as it stands on the wire."""
    body = b"".join(
        b'--edge\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + content + b"\r\n"
        for name, content in parts
    )
    return body + end


async def post(face: Face, body: bytes, content_type: str, **headers: str) -> httpx.Response:
    """Send a body as it is."""
    return await face.http.post("/v1/analyses", content=body, headers={"Content-Type": content_type, **headers})


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "image/png", "", "x"])
async def test_a_wrong_content_type(face: Face, content_type: str) -> None:
    """Neither a form nor JSON is 415, and says what to send."""
    response = await post(face, b"prompt=x", content_type)
    assert error_of(response) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert "multipart/form-data or application/json" in response.text


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", form(("prompt", b"x"))),
        ("multipart/form-data; boundary=", form(("prompt", b"x"))),
        (f"multipart/form-data; boundary={'b' * 300}", form(("prompt", b"x"))),
        (FORM, b""),
        (FORM, b"no form at all"),
        (FORM, b'{"config": {}}'),
        (FORM, form(("prompt", b"x"), end=b"")),
        (FORM, form(("prompt", b"x"), end=b"--edge")),
        (FORM, form(("prompt", b"x"))[:40]),
        (FORM, b"--edge\r\nContent-Disposition: form-data\r\n\r\nx\r\n--edge--\r\n"),
        (FORM, b"--edge\r\nno header\r\n\r\nx\r\n--edge--\r\n"),
        (FORM, b"--edge\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\nx\r\n--edge--\r\n"),
        (FORM, b"--edge\r\n" + b"X: y\r\n" * 1000 + b"\r\nx\r\n--edge--\r\n"),
        (FORM, form(*[("image", b"x")] * 100)),
        (FORM, form(("prompt", b"a"), ("prompt", b"b"))),
        (FORM, form(("promt", b"a"))),
        (FORM, form(("prompt", b"\xff\xfe"))),
        (FORM, form(("config", b"{"))),
        (FORM, form(("config", b"[]"))),
        (FORM, form(("config", b'{"prompt": "a"}'), ("prompt", b"b"))),
        (FORM, form(("requestId", b"\xff"), ("prompt", b"b"))),
    ],
)
async def test_a_malformed_form(face: Face, content_type: str, body: bytes) -> None:
    """Whatever is wrong with a form is 400, and what is known of it is said."""
    assert error_of(await post(face, body, content_type)) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"config": []}',
        b'{"config": "x"}',
        b'{"config": {"prompt": 5}}',
        b'{"config": {"prompt": "\\ud800"}}',
        b'{"config": {"promt": "x"}}',
        b'{"confg": {}}',
        b'{"config": {"prompt": "x"}, "disconnectGrace": "5s"}',
        b'{"config": {"prompt": "x", "images": {}}}',
        b'{"config": {"prompt": "x", "images": ["x"]}}',
        b'{"config": {"prompt": "x", "images": [{}]}}',
        b'{"config": {"prompt": "x", "images": [{"data": 5}]}}',
        b'{"config": {"prompt": "x", "images": [{"data": "", "url": "file:///etc/passwd"}]}}',
        b'{"config": {"prompt": "x", "sampling": {"maxTokens": "many"}}}',
        b'{"config": {"prompt": "x", "sampling": {"maxTokens": 1e99}}}',
        b'{"config": {"prompt": "x", "sampling": {"maxTokens": ' + b"9" * 5000 + b"}}}",
        b'{"config": {"prompt": "x", "sampling": {"temperature": NaN}}}',
        b'{"config": {"prompt": "x", "timeLimit": "soon"}}',
        b'{"config": {"prompt": "x", "timeLimit": 5}}',
        b'{"config": ' * 2000 + b"{}" + b"}" * 2000,
        b"[" * 200_000,
        b'{"config": {}}',
        b"{}",
    ],
    ids=repr,
)
async def test_malformed_json(face: Face, body: bytes) -> None:
    """Whatever is wrong with JSON is 400."""
    assert error_of(await post(face, body, "application/json")) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("text", ["!!!!", "QUJD*", "QUJDR", "QQ==QQ==", "Ä", "QU JD", "=QUJD"])
async def test_bad_base64(face: Face, text: str) -> None:
    """An image whose base64 is damaged anywhere is 400 and names the image, for JSON and for a form's config."""
    config = {"prompt": "x", "images": [{"data": base64.b64encode(b"fine").decode()}, {"data": text}]}
    response = await face.http.post("/v1/analyses", json={"config": config})
    assert error_of(response) == (400, "INVALID_REQUEST")
    assert field_of(response) == "config.images[1].data"
    response = await post(face, form(("config", json.dumps(config).encode())), FORM)
    assert field_of(response) == "config.images[1].data"


async def test_a_refusal_of_the_server_names_its_field(face: Face) -> None:
    """What the service itself refuses comes through with its field."""
    response = await face.http.post("/v1/analyses", json={"config": {"prompt": "x", "sampling": {"topP": 7}}})
    assert error_of(response) == (400, "INVALID_REQUEST")
    assert field_of(response) == "config.sampling.top_p"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/analyses/none",
        "/v1/analyses/none/events",
        "/v1/analyses/..%2f..%2fetc%2fpasswd",
        "/v1/analyses/%2e%2e",
        "/v1/analyses/a%00b",
        "/v1/analyses/%ff",
        "/v1/analyses/a%0d%0aX-Evil:%201",
        f"/v1/analyses/{'a' * 3000}",
        "/v1/analyses/ä",
        "/v1/analyses/a/b",
        "/v1/models/..%2f..%2f..%2fpyproject.toml",
        "/samples/..%2fconfig.json",
        "/samples/%2e%2e/config.json",
        "/..%2f..%2fpyproject.toml",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "/page/..%2f..%2f..%2fpyproject.toml",
    ],
)
async def test_what_is_not_there(face: Face, path: str) -> None:
    """Unknown ids, and ids that try to be paths, are 404; nothing outside of the page's folder is served."""
    response = await face.http.get(path)
    assert response.status_code == 404
    error_of(response)
    assert "evil" not in "".join(response.headers).lower()


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "1e3", "0x1", "９", "99999999999", str(2**31), "1, 2", "null"])
async def test_a_bad_last_event_id(face: Face, value: str) -> None:
    """What is not the id of an event is 400, in the header and in the query."""
    name = await face.create({"prompt": "Hello."})
    header = await face.http.get(f"/v1/{name}/events", headers={b"Last-Event-ID": value.encode()})
    query = await face.http.get(f"/v1/{name}/events", params={"after": value})
    assert error_of(header) == error_of(query) == (400, "INVALID_REQUEST")
    assert (field_of(header), field_of(query)) == ("Last-Event-ID", "after")


@pytest.mark.parametrize(
    ("parameters", "field"),
    [({"pageSize": "-1"}, "pageSize"), ({"pageSize": "x"}, "pageSize"), ({"states": "ASLEEP"}, "states")],
)
async def test_a_bad_page(face: Face, parameters: dict[str, str], field: str) -> None:
    """Queries are checked and named."""
    response = await face.http.get("/v1/analyses", params=parameters)
    assert (error_of(response), field_of(response)) == ((400, "INVALID_REQUEST"), field)


async def test_a_bad_key(face: Face) -> None:
    """An Idempotency-Key that is too long, or differs from the body's, is 400."""
    config = {"prompt": "x"}
    long = await face.http.post("/v1/analyses", json={"config": config}, headers={"Idempotency-Key": "k" * 65})
    assert (error_of(long), field_of(long)) == ((400, "INVALID_REQUEST"), "Idempotency-Key")
    body = {"config": config, "requestId": "a"}
    other = await face.http.post("/v1/analyses", json=body, headers={"Idempotency-Key": "b"})
    assert (error_of(other), field_of(other)) == ((400, "INVALID_REQUEST"), "Idempotency-Key")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/analyses", "GET, POST"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/v1/analyses/x", "DELETE, GET"),
        ("GET", "/v1/analyze", "POST"),
        ("OPTIONS", "/v1/analyses/x:cancel", "POST"),
        ("DELETE", "/", "GET, HEAD"),
        ("TRACE", "/healthz", "GET"),
    ],
)
async def test_a_method_that_is_not_there(face: Face, method: str, path: str, allowed: str) -> None:
    """Another method than a route's is 405, in the shape of every error, and names those that there are."""
    response = await face.http.request(method, path)
    assert (error_of(response), response.headers["allow"]) == ((405, "METHOD_NOT_ALLOWED"), allowed)


async def test_what_has_expired(served: Served) -> None:
    """An analysis whose events were deleted is 410, and can still be got."""
    face = served.face
    name = await face.create({"prompt": "Hello."})
    await face.follow(name)
    await served.running.service.log.expire(ended_before_s=1e12, keep_bytes=1 << 40)
    for headers in ({}, {"Last-Event-ID": "1"}):
        response = await face.http.get(f"/v1/{name}/events", headers=headers)
        assert error_of(response) == (410, "EVENTS_EXPIRED")
    assert (await face.get(name))["expired"] is True


STATUSES = [
    (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", 400),
    (grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID", 401),
    (grpc.StatusCode.PERMISSION_DENIED, "KEY_REVOKED", 403),
    (grpc.StatusCode.NOT_FOUND, "ANALYSIS_NOT_FOUND", 404),
    (grpc.StatusCode.FAILED_PRECONDITION, "ANALYSIS_ACTIVE", 409),
    (grpc.StatusCode.FAILED_PRECONDITION, "EVENTS_EXPIRED", 410),
    (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", 422),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ANALYSES", 429),
    (grpc.StatusCode.INTERNAL, "INTERNAL", 500),
    (grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE", 503),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", 504),
]


@pytest.mark.parametrize(("code", "reason", "status"), STATUSES, ids=[reason for _, reason, _ in STATUSES])
async def test_each_error_of_the_server_has_its_status(
    script: ScriptedServer, code: grpc.StatusCode, reason: str, status: int
) -> None:
    """The server's status is the body as it came; the code and the reason give the HTTP status and the headers."""
    script.refusals = [rich_status(code, "so it is", reason=reason, retry_after_s=2.4)]
    async with standing_alone(script.address) as face:
        response = await face.http.get("/v1/analyses/a1")
        assert error_of(response) == (status, reason)
        assert response.json()["error"]["message"] == "so it is"
        assert response.headers["retry-after"] == "3"
        assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


async def test_a_status_without_details_has_its_place_too(script: ScriptedServer) -> None:
    """A server that ends a call with a bare status is answered for as well."""
    status = rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "x", reason="")
    status.ClearField("details")
    script.refusals.append(status)
    async with standing_alone(script.address) as face:
        response = await face.http.get("/v1/analyses/a1")
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
