"""Doors: whose requests are served. Names, origins, keys and certificates."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import httpx
import pytest
import trustme

from mondrian.v1 import analysis_pb2 as pb
from mondrian_server.callers import CallerLimits
from mondrian_server.callers.editing import add_key, revoke_keys
from mondrian_server.gateway.options import Limits
from tests.cli.programs import run
from tests.client.scripted_server import Context, ScriptedServer, Tape
from tests.conditions import eventually
from tests.gateway.face import Face, Stream, connected, error_of, facing, standing_alone
from tests.service.calls import settings_for, started
from tests.service.certificates import Authority

IMPATIENT = Limits(attach_limit_s=0.5)
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


async def test_callers_have_their_own_analyses(tmp_path: Path) -> None:
    """On a server with keys each caller sees its own analyses; without a key, or with a wrong one, it is 401."""
    file = tmp_path / "keys.toml"
    bob, carol, mallory = (
        {"Authorization": f"Bearer {add_key(file, name, CallerLimits()).text}"} for name in ("bob", "carol", "mallory")
    )
    revoke_keys(file, "mallory")
    settings = settings_for(tmp_path / "data", http_address="127.0.0.1:0", keys_file=file)
    async with started(settings) as up:
        assert up.service.gateway is not None
        async with facing(up.service.gateway.port) as face:
            name = await face.create({"prompt": "Hello."}, **bob)
            await face.read(stream := Stream(), name, headers=bob)
            stream.assert_whole()
            for path in (f"/v1/{name}", f"/v1/{name}/events", f"/v1/{name}/events?after=1"):
                assert error_of(await face.http.get(path, headers=carol)) == (404, "ANALYSIS_NOT_FOUND")
                assert error_of(await face.http.get(path)) == (401, "UNAUTHENTICATED")
                assert error_of(await face.http.get(path, headers=mallory)) == (403, "KEY_REVOKED")
            refused = await face.http.post("/v1/analyze", json={"config": {"prompt": "x"}})
            assert (error_of(refused), refused.headers["www-authenticate"]) == ((401, "UNAUTHENTICATED"), "Bearer")
            assert (await face.http.get("/v1/analyses", headers=carol)).json()["analyses"] == []
            assert (await face.http.get("/")).status_code == 200, "the page itself is for all"
            assert (await face.http.get("/readyz")).status_code == 200
            assert error_of(await face.http.get("/metrics")) == (401, "UNAUTHENTICATED")
            for headers, expected in (
                ({"Authorization": "Bearer no"}, (401, "UNAUTHENTICATED")),
                (mallory, (403, "KEY_REVOKED")),
            ):
                assert error_of(await face.http.get("/metrics", headers=headers)) == expected
                answer = await unread_upload(face, headers)
                assert answer.startswith(b"HTTP/1.1 %d " % expected[0]), "before the body has come"
            assert "mondrian_build_info" in (await face.http.get("/metrics", headers=carol)).text


async def unread_upload(face: Face, headers: dict[str, str]) -> bytes:
    """Send the head of an upload and nothing of its body, and return the first line of the answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /v1/analyses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n{lines}"
    async with connected(face) as (reader, writer), asyncio.timeout(20):
        writer.write(head.encode() + b"\r\n")
        return await reader.readline()


async def test_pages_of_other_origins_read_what_they_are_refused(script: ScriptedServer) -> None:
    """A page that CORS allows may read that its key is missing or is none."""
    async with standing_alone(script.address, keys_needed=True, cors_origins=(ORIGIN,)) as face:
        for headers in ({}, {"Authorization": "Bearer " + "k" * 5000}):
            response = await face.http.get("/v1/models", headers={"Origin": ORIGIN, **headers})
            assert error_of(response) == (401, "UNAUTHENTICATED")
            assert response.headers["access-control-allow-origin"] == ORIGIN


async def test_a_gateway_whose_server_has_keys_asks_for_one(script: ScriptedServer) -> None:
    """It refuses requests without a key before their bodies are read; the page, health and preflights need none."""
    async with standing_alone(script.address, keys_needed=True, cors_origins=(ORIGIN,)) as face:
        assert error_of(await face.http.post("/v1/analyses", content=b"x")) == (401, "UNAUTHENTICATED")
        headers = {"Authorization": "Bearer x"}
        body = {"config": {"prompt": "x"}}
        assert (await face.http.post("/v1/analyses", json=body, headers=headers)).status_code == 201
        assert (await face.http.get("/healthz")).status_code == 200
        preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        assert (await face.http.options("/v1/analyses", headers=preflight)).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--http-address", "0.0.0.0:0"), "--http-address: must be a loopback host"),
        (("--http-address", ""), "--http-address: must not be empty"),
        (("--target-ca-file", "none.pem"), "--target-ca-file: cannot read none.pem: No such file or directory"),
        (("--http-tls-key-file", "key.pem"), "--http-tls-key-file: needs http_tls_certificate_file beside it"),
        (
            ("--http-tls-key-file", "none.pem", "--http-tls-certificate-file", "none.pem"),
            "http_tls_certificate_file, http_tls_key_file: none.pem and none.pem are not a certificate",
        ),
    ],
    ids=["not loopback", "no address", "no authorities", "half", "no files"],
)
async def test_a_gateway_that_cannot_start_says_why(arguments: tuple[str, ...], line: str) -> None:
    """`mondrian gateway` ends with status 1 and one line that names the setting."""
    ended = await run("gateway", "--target", "127.0.0.1:1", *arguments)
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert ended.err.startswith(f"mondrian: {line}")


async def test_https_by_setting(tmp_path: Path) -> None:
    """With a certificate the gateway serves HTTPS, and takes another one when the files change; nothing in clear."""
    authority, next_authority = trustme.CA(), trustme.CA()
    files = {"http_tls_certificate_file": tmp_path / "cert.pem", "http_tls_key_file": tmp_path / "key.pem"}
    write_certificate(authority, files)
    settings = settings_for(tmp_path / "data", http_address="127.0.0.1:0", **files)
    async with started(settings) as up:
        assert up.service.gateway is not None
        port = up.service.gateway.port
        async with facing(port, scheme="https", verify=trust_in(authority)) as face:
            name = await face.create({"prompt": "Describe it.", "sampling": {"minTokens": 3000, "maxTokens": 3000}})
            stream = Stream()
            reading = asyncio.create_task(face.read(stream, name))
            await eventually(stream.has_token)
            write_certificate(next_authority, files)
            async with facing(port, scheme="https", verify=trust_in(next_authority)) as later:
                await eventually(later.ready)
                assert not reading.done(), "what is open goes on"
                await later.http.post(f"/v1/{name}:cancel")
            await reading
        async with facing(port) as face:
            with pytest.raises(httpx.TransportError):
                await face.http.get("/healthz")


def write_certificate(authority: trustme.CA, files: dict[str, Path]) -> None:
    """Write a certificate for this machine and its key."""
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(files["http_tls_key_file"])
    certificate.cert_chain_pems[0].write_to_path(files["http_tls_certificate_file"])


def trust_in(authority: trustme.CA) -> ssl.SSLContext:
    """Return the context of a client that trusts one authority."""
    trust = ssl.create_default_context()
    trust.load_verify_locations(cadata=authority.cert_pem.bytes().decode())
    return trust


async def test_a_server_behind_tls(tmp_path: Path) -> None:
    """A gateway by itself reaches a server with TLS by the certificates that it trusts, and no other."""
    authority = Authority(folder=tmp_path)
    async with started(settings_for(tmp_path / "data", **authority.settings), ready=False) as up:
        target = f"localhost:{up.service.port}"
        async with standing_alone(target, ca=authority.ca.cert_pem.bytes()) as face:
            await eventually(face.ready, within_s=60)
            await face.create({"prompt": "Hello."})
        async with standing_alone(target, IMPATIENT, ca=trustme.CA().cert_pem.bytes()) as face:
            response = await face.http.post("/v1/analyses", json={"config": {"prompt": "x"}})
            assert error_of(response) == (503, "SERVER_UNREACHABLE")
