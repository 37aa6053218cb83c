"""Doors: whose requests are served. Names, origins, keys and certificates."""

import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import httpx
import pytest
import trustme

from mondrian.v1 import analysis_pb2 as pb
from tests.client.scripted_server import Context, ScriptedServer, Tape
from tests.gateway.face import Face, error_of, facing, standing_alone
from tests.service.calls import settings_for, started

ORIGIN = "https://photos.example.org"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::2]", "127.0.0.2"],
)
@pytest.mark.parametrize("path", ["/", "/v1/analyses", "/metrics", "/healthz", "/none"])
async def test_a_name_that_is_not_ours(face: Face, host: str, path: str) -> None:
    """A request under a foreign name, as DNS rebinding makes them, is 421 on every path, the page's too."""
    response = await face.http.get(path, headers={"Host": host})
    assert error_of(response) == (421, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:1", "LOCALHOST:8080", "[::1]", "[::1]:8080"])
async def test_names_of_loopback_are_ours(face: Face, host: str) -> None:
    """Whatever the port, which a proxy or a tunnel may have changed."""
    assert (await face.http.get("/healthz", headers={"Host": host})).status_code == 200


async def test_more_names_by_setting(script: ScriptedServer) -> None:
    """The setting adds names; `*` allows all."""
    async with standing_alone(script.address, allowed_hosts=frozenset({"photos.example.org"})) as face:
        for host, status in (("photos.example.org", 200), ("Photos.Example.org:443", 200), ("example.org", 421)):
            assert (await face.http.get("/healthz", headers={"Host": host})).status_code == status
    async with standing_alone(script.address, allowed_hosts=frozenset({"*"})) as face:
        assert (await face.http.get("/healthz", headers={"Host": "example.org"})).status_code == 200


@pytest.mark.parametrize("origin", [ORIGIN, "null", "http://127.0.0.1.evil.example", "http://127.0.0.1:1"])
async def test_pages_of_other_sites_change_nothing(face: Face, origin: str) -> None:
    """What a form on another site's page can send is 403, before its body is read, and nothing invites a script."""
    form = {"Content-Type": "multipart/form-data; boundary=x", "Origin": origin}
    for path in ("/v1/analyses", "/v1/analyze", "/v1/analyses/x:cancel"):
        response = await face.http.post(path, content=b"x", headers=form)
        assert error_of(response) == (403, "ORIGIN_NOT_ALLOWED")
        assert "access-control-allow-origin" not in response.headers
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert (await face.http.options("/v1/analyses", headers=preflight)).status_code == 405
    assert "access-control-allow-origin" not in (await face.http.get("/v1/models", headers={"Origin": origin})).headers


async def test_our_own_page_is_served(face: Face) -> None:
    """Requests of the gateway's own page carry its origin."""
    response = await face.http.post("/v1/analyses", json={"config": {"prompt": "x"}}, headers={"Origin": face.url})
    assert response.status_code == 201


async def test_origins_by_setting(script: ScriptedServer) -> None:
    """With CORS the pages of the origins that are named may call the API, read its headers, and nobody else may."""
    async with standing_alone(script.address, cors_origins=(ORIGIN,)) as face:
        asked = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,last-event-id",
        }
        preflight = await face.http.options("/v1/analyses", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        body = {"config": {"prompt": "x"}}
        response = await face.http.post("/v1/analyses", json=body, headers={"Origin": ORIGIN})
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "Location" in response.headers["access-control-expose-headers"]
        other = await face.http.post("/v1/analyses", json=body, headers={"Origin": "https://evil.example"})
        assert error_of(other) == (403, "ORIGIN_NOT_ALLOWED")
        assert "access-control-allow-credentials" not in response.headers


async def test_a_key_is_passed_on_and_nothing_else(script: ScriptedServer) -> None:
    """The caller's Authorization reaches the server with each call, re-attached streams included."""
    tape = Tape()
    seen: list[dict[str, str]] = []

    def note(context: Context) -> None:
        seen.append({key: str(value) for key, value in context.invocation_metadata() or ()})

    async def broken_off(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        note(context)
        yield tape.accepted()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    async def going_on(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        note(context)
        yield tape.completed("")

    script.script, script.watch_script = broken_off, going_on
    async with standing_alone(script.address) as face:
        headers = {"Authorization": "Bearer k-1", "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4"}
        response = await face.http.post("/v1/analyze", json={"config": {"prompt": "x"}}, headers=headers)
        assert "event: completed" in response.text
    assert [metadata["authorization"] for metadata in seen] == ["Bearer k-1", "Bearer k-1"]
    assert not {"cookie", "x-forwarded-for"} & seen[0].keys()
    async with standing_alone(script.address) as face:
        odd = await face.http.get("/v1/models", headers={b"Authorization": b"Bearer \xff\xfe"})
        assert error_of(odd) == (401, "UNAUTHENTICATED")


async def test_https_by_setting(tmp_path: Path) -> None:
    """With a certificate the gateway serves HTTPS, streams included, and nothing in clear."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    files = {"http_tls_certificate_file": tmp_path / "cert.pem", "http_tls_key_file": tmp_path / "key.pem"}
    certificate.cert_chain_pems[0].write_to_path(files["http_tls_certificate_file"])
    certificate.private_key_pem.write_to_path(files["http_tls_key_file"])
    trust = ssl.create_default_context()
    authority.configure_trust(trust)  # pyright: ignore[reportUnknownMemberType]  # pyOpenSSL, which it knows too, is not here
    async with started(settings_for(tmp_path / "data", http_address="127.0.0.1:0", **files)) as up:
        assert up.service.gateway is not None
        port = up.service.gateway.port
        async with facing(port, scheme="https", verify=trust) as face:
            name = await face.create({"prompt": "Hello."})
            (await face.follow(name)).assert_whole()
        async with facing(port) as face:
            with pytest.raises(httpx.TransportError):
                await face.http.get("/healthz")
