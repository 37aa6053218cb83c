"""Callers: who is let in by which key, and that nobody sees anything of anybody else."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import MethodDescriptor

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.callers import CallerLimits
from mondrian_server.callers.editing import add_key, revoke_keys
from mondrian_server.callers.keys import Key
from mondrian_server.rpc.server import ADVISOR_SERVICE, ANALYSIS_SERVICE, MODEL_SERVICE
from tests.conditions import eventually
from tests.service.calls import Call, Connection, Running, refused, settings_for, started
from tests.service.programs import program

METHODS = [*ANALYSIS_SERVICE.methods, *ADVISOR_SERVICE.methods, *MODEL_SERVICE.methods]
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
HELLO = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=4))


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A service with keys, and some that it knows."""

    up: Running
    keys_file: Path
    bob: Connection
    carol: Connection
    revoked: Key

    def as_dave(self) -> Connection:
        """Return a connection with a wrong secret."""
        id_ = (Key.parse(self.bob.key) or Key.make()).id
        return self.up.by(Key(id=id_, secret=Key.make().secret).text)


@pytest_asyncio.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[House]:
    """A service on the embedded model, for callers with keys."""
    folder = tmp_path_factory.mktemp("house")
    path = folder / "keys.toml"
    bob, carol, revoked = (add_key(path, name, CallerLimits()).text for name in ("bob", "carol", "mallory"))
    revoke_keys(path, "mallory")
    async with started(settings_for(folder / "data", keys_file=path)) as up:
        key = Key.parse(revoked)
        assert key is not None
        yield House(up=up, keys_file=path, bob=up.by(bob), carol=up.by(carol), revoked=key)


async def answer(
    up: Connection, method: MethodDescriptor, metadata: tuple[tuple[str, str], ...], data: bytes = b""
) -> tuple[grpc.StatusCode, str]:
    """Call a method, which must fail, and return the status code and the reason."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    channel: Any = up.channel
    if method.server_streaming:
        outcome = await Call(channel.unary_stream(path)(data, metadata=metadata)).outcome()
    else:
        outcome = await refused(channel.unary_unary(path)(data, metadata=metadata))
    return outcome.code, outcome.reason


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_every_method_asks_for_a_key(house: House, method: MethodDescriptor) -> None:
    """Without one, with a wrong one and with a revoked one; and before the message is looked at, which is garbage."""
    garbage = b"\xff\xff"
    unauthenticated = (UNAUTHENTICATED, "UNAUTHENTICATED")
    assert await answer(house.up, method, (), garbage) == unauthenticated
    assert await answer(house.up, method, house.as_dave().metadata, garbage) == unauthenticated
    revoked = house.up.by(house.revoked.text).metadata
    assert await answer(house.up, method, revoked, garbage) == (PERMISSION_DENIED, "KEY_REVOKED")


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "{}")],
        [("authorization", "Basic {}")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer {}"), ("authorization", "Bearer {}")],
        [("x-api-key", "{}")],
    ],
    ids=["no scheme", "another scheme", "no key", "two keys", "another header"],
)
async def test_a_key_has_one_place(house: House, headers: list[tuple[str, str]]) -> None:
    """What is not one `authorization: Bearer KEY` shows nobody."""
    metadata = tuple((name, value.format(house.bob.key)) for name, value in headers)
    listing = house.up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(), metadata=metadata)
    assert (await refused(listing)).code is UNAUTHENTICATED


async def test_the_scheme_is_read_in_any_case(house: House) -> None:
    """As RFC 9110 has it."""
    metadata = (("authorization", f"bearer  {house.bob.key}"),)
    await house.up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(), metadata=metadata)


async def test_a_large_message_of_nobody_is_not_read(house: House) -> None:
    """A stranger's megabytes are refused for the stranger's sake, not for theirs."""
    images = [pb.Image(data=bytes(20_000_000)) for _ in range(2)]  # more than the server would take
    outcome = await house.up.call(pb.AnalysisConfig(images=images)).outcome()
    assert outcome.code is UNAUTHENTICATED


async def test_a_known_caller_is_served(house: House) -> None:
    """With the key, an analysis comes to its end and is in the caller's list."""
    outcome = await house.bob.ask(HELLO)
    assert outcome.completed.text
    listing = await house.up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(), metadata=house.bob.metadata)
    assert outcome.events[0].analysis in [analysis.name for analysis in listing.analyses]


async def test_anothers_analysis_does_not_exist(house: House) -> None:
    """For all others it is NOT_FOUND, in the words of one that never was, while it runs and after its end."""
    long = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=400, min_tokens=400))
    call = house.bob.call(long)
    name = (await call.until_token()).analysis
    await carol_finds_nothing(house, name)
    assert (await call.outcome()).completed
    await carol_finds_nothing(house, name)
    assert (await house.bob.get(name)).name == name


async def carol_finds_nothing(house: House, name: str) -> None:
    """Try everything that can be done with an analysis."""
    stub, metadata = house.up.analyses, house.carol.metadata
    never = "analyses/" + "0" * 32
    tries: dict[str, Callable[[str], Awaitable[Any]]] = {
        "get": lambda name: refused(house.carol.get(name)),
        "cancel": lambda name: refused(
            stub.CancelAnalysis(service_pb.CancelAnalysisRequest(name=name), metadata=metadata)
        ),
        "delete": lambda name: refused(
            stub.DeleteAnalysis(service_pb.DeleteAnalysisRequest(name=name), metadata=metadata)
        ),
        "watch": house.carol.watched,
    }
    for what, attempt in tries.items():
        theirs, nobodys = await attempt(name), await attempt(never)
        assert (theirs.code, theirs.reason) == (NOT_FOUND, "ANALYSIS_NOT_FOUND"), what
        assert theirs.message.replace(name, never) == nobodys.message, what
    listing = await stub.ListAnalyses(service_pb.ListAnalysesRequest(), metadata=metadata)
    assert name not in [analysis.name for analysis in listing.analyses]


async def test_request_ids_are_each_callers_own(house: House) -> None:
    """One caller's request id says nothing to another, whose request it would otherwise have been."""

    async def create(caller: Connection) -> str:
        return (await caller.create(HELLO, request_id="11111111-1111-4111-8111-111111111111")).name

    mine, again, theirs = await create(house.bob), await create(house.bob), await create(house.carol)
    assert mine == again
    assert theirs != mine


async def test_caches_are_each_callers_own(house: House, picture: bytes) -> None:
    """What one caller has asked makes nothing faster for another, who could tell from it what was asked."""
    config = pb.AnalysisConfig(
        prompt="Describe this image. " * 8, images=[pb.Image(data=picture)], sampling=pb.Sampling(max_tokens=2)
    )
    cold, warm, theirs = [(await caller.ask(config)).completed for caller in (house.bob, house.bob, house.carol)]
    assert cold.usage.cached_tokens == 0
    assert warm.usage.cached_tokens > 0
    assert theirs.usage.cached_tokens == 0
    assert theirs.text == cold.text


async def test_health_is_open_and_reflection_is_not(house: House) -> None:
    """Whoever watches over the service needs no key; by default a server with keys does not tell its contract."""
    assert await house.up.is_serving()
    method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.up.channel.stream_unary(method)(iter([b""]), metadata=house.bob.metadata)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_keys_come_and_go_without_a_restart(house: House) -> None:
    """A new key is good within seconds, and refused within seconds of being revoked."""
    erin = house.up.by(add_key(house.keys_file, "erin", CallerLimits()).text)

    async def code() -> grpc.StatusCode:
        try:
            await erin.analyses.ListAnalyses(service_pb.ListAnalysesRequest(), metadata=erin.metadata)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def is_code(wanted: grpc.StatusCode) -> bool:
        return await code() is wanted

    assert await code() is UNAUTHENTICATED
    await eventually(lambda: is_code(grpc.StatusCode.OK))
    revoke_keys(house.keys_file, "erin")
    await eventually(lambda: is_code(PERMISSION_DENIED))


async def test_no_key_reaches_a_log(tmp_path: Path) -> None:
    """Not a good one, a revoked one, a wrong one or a malformed one; not at debug level, and not in `ps`."""
    keys = {name: add_key(tmp_path / "keys.toml", name, CallerLimits()) for name in ("bob", "mallory")}
    revoke_keys(tmp_path / "keys.toml", "mallory")
    wrong = Key.make()
    sent = [*(key.text for key in keys.values()), wrong.text, f"{wrong.text}-malformed", wrong.secret]
    async with program(tmp_path, "--keys-file", "keys.toml", "--log-level", "debug") as server:
        codes = [(await server.by(key).ask(HELLO)).code for key in sent]
        assert codes == [grpc.StatusCode.OK, PERMISSION_DENIED, *[UNAUTHENTICATED] * 3]
        invalid = await server.by(keys["bob"].text).ask(pb.AnalysisConfig())
        assert invalid.code is grpc.StatusCode.INVALID_ARGUMENT
        (tmp_path / "keys.toml").write_text(f'[callers.bob]\nkeys = "{keys["bob"].text}"\n')
        await eventually(lambda: "the key file cannot be used" in server.errors)
        command_lines = " ".join(" ".join(process.cmdline()) for process in server.family)
        spoken = server.errors + command_lines
    assert any(line.get("caller") == "bob" for line in server.log), "the caller's name is there"
    for secret in (*(key.secret for key in keys.values()), wrong.secret):
        assert secret[:12] not in spoken


@pytest.mark.parametrize(("setting", "expected"), [("on", True), ("off", False), ("auto", True)])
async def test_reflection_is_a_setting(tmp_path: Path, setting: str, expected: bool) -> None:
    """`on` and `off` mean it; `auto` leaves it open where everybody is local."""
    async with started(settings_for(tmp_path, reflection=setting), ready=False) as up:
        method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        channel: Any = up.channel
        answers: list[bytes] = []
        try:
            call = channel.stream_stream(method)(iter([b"\x3a\x00"]))  # list_services
            answers.extend([one async for one in call])
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert bool(answers) is expected
