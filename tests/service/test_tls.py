"""TLS and client certificates: who is let in, who a certificate names, and files that change under load."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import trustme
from structlog.testing import capture_logs

from mondrian.v1 import analysis_pb2 as pb
from mondrian_server.callers import CallerLimits
from mondrian_server.callers.editing import add_key
from mondrian_server.callers.keys import Key
from tests.conditions import eventually
from tests.service.calls import Call, Connection, refused, settings_for
from tests.service.certificates import HOSTS, Authority, certificate_shown, chain_of, der_of, list_code
from tests.service.programs import start

OK = grpc.StatusCode.OK
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
STREAMS = 8


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Certificates for a server, and files for it."""
    return Authority(folder=tmp_path)


def tokens(count: int) -> pb.AnalysisConfig:
    """Return a request for exactly so many tokens."""
    return pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=count, min_tokens=count))


async def test_keys_are_taken_over_tls(authority: Authority, tmp_path: Path) -> None:
    """A known caller is served; whoever speaks plaintext, or trusts somebody else, is not connected."""
    key = add_key(tmp_path / "keys.toml", "bob", CallerLimits()).text
    settings = settings_for(tmp_path / "data", keys_file=tmp_path / "keys.toml", **authority.settings)
    async with authority.started(settings) as up:
        assert (await up.by(key).ask(tokens(4))).completed
        assert await list_code(up) is UNAUTHENTICATED
        async with grpc.aio.insecure_channel(f"127.0.0.1:{up.service.port}") as plain:
            assert await list_code(Connection(channel=plain, key=key)) is UNAVAILABLE
        mistaken = Authority(folder=tmp_path_of(tmp_path, "other"))
        async with mistaken.channel(up.service.port) as channel:
            assert await list_code(Connection(channel=channel, key=key)) is UNAVAILABLE


def tmp_path_of(parent: Path, name: str) -> Path:
    """Return a new folder."""
    folder = parent / name
    folder.mkdir()
    return folder


async def test_a_client_certificate_names_its_caller(authority: Authority, tmp_path: Path) -> None:
    """By its common name, else by its first DNS name; each sees its own analyses only."""
    clients = authority.clients_ca
    bob, bobs_phone = (clients.issue_cert(f"{name}.example", common_name="bob") for name in ("a", "b"))
    nameless = clients.issue_cert("camera.example", "other.example")
    nobody = clients.issue_cert("192.0.2.1")
    settings = settings_for(tmp_path / "data", **authority.mutual)
    async with authority.started(settings, bob) as up:
        port = up.service.port
        name = (await up.ask(tokens(4))).events[0].analysis
        async with authority.channel(port, bobs_phone) as channel:
            assert (await Connection(channel=channel).get(name)).name == name
        async with authority.channel(port, nameless) as channel:
            camera = Connection(channel=channel)
            assert (await refused(camera.get(name))).reason == "ANALYSIS_NOT_FOUND"
            theirs = (await camera.ask(tokens(4))).events[0].analysis
        assert (await up.service.log.get(name)).caller == "bob"
        assert (await up.service.log.get(theirs)).caller == "camera.example"
        async with authority.channel(port, nobody) as channel:
            assert await list_code(Connection(channel=channel)) is UNAUTHENTICATED


async def test_certificates_that_are_no_good_are_refused(authority: Authority, tmp_path: Path) -> None:
    """Expired, of another authority, of the server's own authority, and none at all: no connection comes about."""
    clients = authority.clients_ca
    past = datetime(2020, 1, 1, tzinfo=UTC)
    bad = {
        "expired": clients.issue_cert("bob.example", common_name="bob", not_after=past),
        "wrong authority": trustme.CA().issue_cert("bob.example", common_name="bob"),
        "the server's authority": authority.ca.issue_cert("bob.example", common_name="bob"),
        "none": None,
    }
    bob = clients.issue_cert("bob.example", common_name="bob")
    async with authority.started(settings_for(tmp_path / "data", **authority.mutual), bob) as up:
        for what, certificate in bad.items():
            async with authority.channel(up.service.port, certificate) as channel:
                assert await list_code(Connection(channel=channel)) is UNAVAILABLE, what
        assert await list_code(up) is OK


async def test_a_key_goes_before_the_certificate(authority: Authority, tmp_path: Path) -> None:
    """A proxy with a certificate passes its callers' keys on; a wrong key is not made good by the certificate."""
    bob = add_key(tmp_path / "keys.toml", "bob", CallerLimits()).text
    settings = settings_for(tmp_path / "data", keys_file=tmp_path / "keys.toml", **authority.mutual)
    proxy = authority.clients_ca.issue_cert("proxy.example", common_name="proxy")
    async with authority.started(settings, proxy) as up:
        names = {(await by.ask(tokens(2))).events[0].analysis: by.key for by in (up, up.by(bob))}
        owners = [(await up.service.log.get(name)).caller for name in names]
        assert owners == ["proxy", "bob"]
        assert await list_code(up.by(Key.make().text)) is UNAUTHENTICATED


async def test_rotation_breaks_no_stream(authority: Authority, tmp_path: Path) -> None:
    """Streams run through several changes of the files to their end; each new connection sees the new certificate."""
    bob = authority.clients_ca.issue_cert("bob.example", common_name="bob")
    async with authority.started(settings_for(tmp_path / "data", **authority.mutual), bob) as up:
        port = up.service.port
        alone = (await up.ask(tokens(900))).completed.text
        calls = [up.call(tokens(900)) for _ in range(STREAMS)]
        await asyncio.gather(*(call.until_token() for call in calls))
        for _ in range(2):
            leaf = authority.ca.issue_cert(*HOSTS)
            authority.write_server(leaf)
            await eventually(lambda leaf=leaf: shows(port, leaf))
            assert not all(call.ended for call in calls), "the change came under load"
            async with authority.channel(port, bob) as channel:
                assert (await Connection(channel=channel).ask(tokens(2))).completed
        await finished(calls, alone)


async def shows(port: int, leaf: trustme.LeafCert) -> bool:
    """Return whether new handshakes show this certificate."""
    return await certificate_shown(port) == der_of(leaf)


async def finished(calls: list[Call], text: str) -> None:
    """Wait for the end of streams, each of which must be whole."""
    for outcome in await asyncio.gather(*(call.outcome() for call in calls)):
        assert outcome.completed.text == outcome.text == text
        assert [event.sequence for event in outcome.events] == list(range(1, len(outcome.events) + 1))


async def test_the_clients_authority_is_rotated_too(authority: Authority, tmp_path: Path) -> None:
    """Certificates of the new one are taken, those of the old one refused; a connection that is open goes on."""
    bob = authority.clients_ca.issue_cert("bob.example", common_name="bob")
    async with authority.started(settings_for(tmp_path / "data", **authority.mutual), bob) as up:
        call = up.call(tokens(900))
        await call.until_token()
        new = trustme.CA()
        new.cert_pem.write_to_path(tmp_path / "clients.pem")
        carol = new.issue_cert("carol.example", common_name="carol")

        async def is_let_in(certificate: trustme.LeafCert) -> bool:
            async with authority.channel(up.service.port, certificate) as channel:
                return await list_code(Connection(channel=channel)) is OK

        await eventually(lambda: is_let_in(carol))
        assert not await is_let_in(bob)
        assert (await call.outcome()).completed
        assert await list_code(up) is OK


async def test_broken_files_keep_the_old_certificate(authority: Authority, tmp_path: Path) -> None:
    """A certificate without its key changes nothing, until the key has come."""
    settings = settings_for(tmp_path / "data", **authority.settings)
    before = authority.ca.issue_cert(*HOSTS)
    authority.write_server(before)
    async with authority.started(settings) as up:
        after = authority.ca.issue_cert(*HOSTS)
        with capture_logs() as lines:
            (tmp_path / "server.pem").write_bytes(chain_of(after))
            await eventually(lambda: [line for line in lines if line["log_level"] == "error"])
        assert "tls_certificate_file" in lines[-1]["problem"]
        assert await shows(up.service.port, before)
        assert await list_code(up) is OK
        after.private_key_pem.write_to_path(tmp_path / "server.key")
        await eventually(lambda: shows(up.service.port, after))


@pytest.mark.parametrize("fault", ["no file", "another key", "no certificate", "no authorities"])
async def test_files_that_cannot_be_used_are_told_in_one_line(authority: Authority, tmp_path: Path, fault: str) -> None:
    """The server does not start, and the line names the setting and the file."""
    name = {"no file": "server.pem", "another key": "server.key", "no certificate": "server.pem"}.get(
        fault, "clients.pem"
    )
    contents = {"another key": authority.ca.issue_cert("x").private_key_pem.bytes(), "no file": None}
    spoil(tmp_path / name, contents.get(fault, b"-----BEGIN NOTHING-----"))
    flags = [
        part for setting, path in authority.mutual.items() for part in (f"--{setting.replace('_', '-')}", str(path))
    ]
    process = await start(tmp_path, "--grpc-address", "127.0.0.1:0", *flags)
    await asyncio.wait_for(process.communicate(), 30)
    (line,) = (tmp_path / "stderr").read_text().splitlines()
    assert process.returncode == 1
    assert line.startswith("mondrian: tls_") and str(tmp_path / name) in line


def spoil(path: Path, content: bytes | None) -> None:
    """Give a file another content, or take it away."""
    path.unlink()
    if content is not None:
        path.write_bytes(content)
