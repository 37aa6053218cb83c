"""Access: clients show keys and certificates, and a key is never readable on the way."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

import mondrian
from mondrian_server.callers import CallerLimits
from mondrian_server.callers.editing import add_key, revoke_keys
from mondrian_server.callers.keys import Key
from tests.cli.programs import run
from tests.service.calls import settings_for
from tests.service.certificates import Authority, chain_of

KINDS = (mondrian.AsyncClient, mondrian.Client)


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A service with TLS and keys, and what its callers have."""

    address: str
    authority: Authority
    key: str
    revoked: str
    folder: Path

    @property
    def tls(self) -> mondrian.Tls:
        """How to trust the service."""
        return mondrian.Tls(ca=self.authority.ca.cert_pem.bytes())


@pytest_asyncio.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[House]:
    """A service on the embedded model that asks for keys, over TLS."""
    folder = tmp_path_factory.mktemp("house")
    path = folder / "keys.toml"
    key, revoked = (add_key(path, name, CallerLimits()).text for name in ("bob", "mallory"))
    revoke_keys(path, "mallory")
    authority = Authority(folder=folder)
    authority.ca.cert_pem.write_to_path(folder / "ca.pem")
    async with authority.started(settings_for(folder / "data", keys_file=path, **authority.settings)) as up:
        address = f"localhost:{up.service.port}"
        yield House(address=address, authority=authority, key=key, revoked=revoked, folder=folder)


async def used(kind: type[Any], address: str, **access: Any) -> list[str]:
    """Do one of everything with a client of either kind, and return the names of its analyses."""
    if kind is mondrian.AsyncClient:
        async with mondrian.AsyncClient(address, **access) as client:
            return await _everything(client)
    return await asyncio.to_thread(_everything_in_a_thread, address, access)


async def _everything(client: mondrian.AsyncClient) -> list[str]:
    await client.wait_until_ready()
    await client.ask("Hello", max_tokens=2)
    created = await client.create("Hello", max_tokens=2)
    async for _ in client.watch(created.name):
        pass
    assert (await client.get(created.name)).text
    await client.cancel(created.name)
    await client.delete(created.name)
    assert await client.list_advisors()
    assert await client.get_model((await client.list_models())[0].name)
    return [analysis.name async for analysis in client.list()]


def _everything_in_a_thread(address: str, access: dict[str, Any]) -> list[str]:
    with mondrian.Client(address, **access) as client:
        client.wait_until_ready()
        client.ask("Hello", max_tokens=2)
        created = client.create("Hello", max_tokens=2)
        for _ in client.watch(created.name):
            pass
        assert client.get(created.name).text
        client.cancel(created.name)
        client.delete(created.name)
        assert client.list_advisors()
        assert client.get_model(client.list_models()[0].name)
        return [analysis.name for analysis in client.list()]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_call_carries_the_key(house: House, kind: type[Any]) -> None:
    """Over TLS, from the first call to the last."""
    assert await used(kind, house.address, api_key=house.key, tls=house.tls)


@pytest.mark.parametrize("kind", KINDS)
async def test_refusals_are_typed(house: House, kind: type[Any]) -> None:
    """Without a key, with a wrong one and with a revoked one."""
    wrong = Key.make()
    with pytest.raises(mondrian.Unauthenticated) as caught:
        await used(kind, house.address, tls=house.tls)
    assert caught.value.reason == "UNAUTHENTICATED"
    with pytest.raises(mondrian.Unauthenticated) as caught:
        await used(kind, house.address, tls=house.tls, api_key=wrong.text)
    assert wrong.secret not in str(caught.value)
    with pytest.raises(mondrian.KeyRevoked) as revoked:
        await used(kind, house.address, tls=house.tls, api_key=house.revoked)
    assert isinstance(revoked.value, mondrian.PermissionDenied)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stranger_in_the_servers_place_gets_nothing(house: House, kind: type[Any]) -> None:
    """A server whose certificate is not of the trusted authorities is no server."""
    for tls in (mondrian.Tls(ca=trustme.CA().cert_pem.bytes()), True):
        client = kind(house.address, api_key=house.key, tls=tls)
        with pytest.raises(mondrian.ConnectionFailed):
            await _listed(client)


async def _listed(client: Any) -> None:
    if isinstance(client, mondrian.AsyncClient):
        async with client:
            await client.list_models(timeout=20)
    else:
        with client:
            await asyncio.to_thread(client.list_models, timeout=20)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_certificate_is_shown(tmp_path: Path, kind: type[Any]) -> None:
    """By paths or by bytes; the name in it is the caller."""
    authority = Authority(folder=tmp_path)
    bob = authority.clients_ca.issue_cert("bob.example", common_name="bob")
    bob.private_key_pem.write_to_path(tmp_path / "bob.key")
    (tmp_path / "bob.pem").write_bytes(chain_of(bob))
    async with authority.started(settings_for(tmp_path / "data", **authority.mutual), bob) as up:
        ca = authority.ca.cert_pem.bytes()
        tls = mondrian.Tls(ca=ca, certificate=tmp_path / "bob.pem", key=str(tmp_path / "bob.key"))
        (name,) = await used(kind, f"localhost:{up.service.port}", tls=tls)
        assert (await up.service.log.get(name)).caller == "bob"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("address", ["vision.example.org:443", "10.0.0.7:50051", "dns:///localhost:50051"])
def test_a_key_is_not_sent_in_the_clear(kind: type[Any], address: str) -> None:
    """Nothing is connected, and the error says what to do without repeating the key."""
    key = Key.make()
    with pytest.raises(ValueError, match="in the clear: use TLS") as caught:
        kind(address, api_key=key.text)
    assert key.secret not in str(caught.value)


@pytest.mark.parametrize("key", ["", " ", "a b", "schlüssel", "a\nb"])
def test_what_cannot_be_a_key_is_refused(key: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match="the API key is empty, or has characters that no key has"):
        mondrian.Client(api_key=key)


def test_a_certificate_needs_its_key() -> None:
    """One without the other is a mistake."""
    with pytest.raises(ValueError, match="a certificate and its key go together"):
        mondrian.Client(tls=mondrian.Tls(certificate=b"x"))


def test_secrets_are_not_shown() -> None:
    """Neither by a client's access nor by TLS."""
    assert "private" not in repr(mondrian.Tls(certificate=b"c", key=b"private"))


async def test_commands_show_the_key_of_the_environment_or_a_file(house: House, tmp_path: Path) -> None:
    """Never one of the command line, which is for everybody to see; a file goes before the variable."""
    access = ("--address", house.address, "--tls-ca", str(house.folder / "ca.pem"))
    done = await run("models", *access, MONDRIAN_API_KEY=house.key)
    assert (done.status, done.out.startswith("models/")) == (0, True)
    (tmp_path / "key").write_text(f"{house.key}\n")
    by_file = await run("models", *access, "--api-key-file", str(tmp_path / "key"), MONDRIAN_API_KEY="mondrian_x")
    assert by_file.out == done.out
    without = await run("models", *access)
    assert (without.status, without.out) == (2, "")
    assert without.err.startswith("mondrian: the call has no API key")
    plain = await run("models", "--address", "vision.example.org:443", MONDRIAN_API_KEY=house.key)
    assert (plain.status, "use TLS (--tls, or --tls-ca FILE)" in plain.err) == (2, True)
    missing = await run("models", *access, "--api-key-file", str(tmp_path / "none"))
    assert missing.err == f"mondrian: cannot read {tmp_path / 'none'}: No such file or directory\n"
