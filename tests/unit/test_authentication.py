"""Authentication: the private listener, on which a caller is named by its key alone."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mondrian.v1 import advisor_service_pb2 as advisor_pb
from mondrian.v1 import advisor_service_pb2_grpc
from mondrian_server.callers import CallerLimits, KeyRing
from mondrian_server.callers.editing import add_key
from mondrian_server.errors import StartupError
from mondrian_server.rpc.authentication import Authentication, AuthenticationInterceptor, caller
from mondrian_server.rpc.reception import Context
from mondrian_server.rpc.registration import register
from mondrian_server.rpc.server import ADVISOR_SERVICE, bind_private


class WhoIsIt:
    """Answers with the caller's name."""

    async def ListAdvisors(self, request: object, _: Context) -> advisor_pb.ListAdvisorsResponse:
        """Say who asks, where the token of the next page would stand."""
        return advisor_pb.ListAdvisorsResponse(next_page_token=caller())


@asynccontextmanager
async def private(folder: Path, authentication: Authentication) -> AsyncGenerator[grpc.aio.Channel]:
    """Run a server that listens on a socket in `folder`, and connect to it."""
    server = grpc.aio.server(interceptors=[AuthenticationInterceptor(authentication)])
    register(server, ADVISOR_SERVICE, WhoIsIt())
    target = bind_private(server, folder / "private.sock")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            yield channel
    finally:
        await server.stop(0)


async def name(channel: grpc.aio.Channel, key: str = "") -> Any:
    """Return who the server takes us for, or the code with which it refuses us."""
    stub: Any = advisor_service_pb2_grpc.AdvisorServiceStub(channel)
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    try:
        return (await stub.ListAdvisors(advisor_pb.ListAdvisorsRequest(), metadata=metadata)).next_page_token
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_everybody_is_local_without_keys_and_certificates(tmp_path: Path) -> None:
    """A key that is sent all the same says nothing."""
    async with private(tmp_path, Authentication()) as channel:
        assert [await name(channel), await name(channel, "anything")] == ["local", "local"]


async def test_a_key_names_its_caller(tmp_path: Path) -> None:
    """And without one there is nobody."""
    bob = add_key(tmp_path / "keys.toml", "bob", CallerLimits()).text
    keys = KeyRing(tmp_path / "keys.toml")
    async with private(tmp_path, Authentication(keys=keys)) as channel:
        assert [await name(channel, bob), await name(channel)] == ["bob", grpc.StatusCode.UNAUTHENTICATED]


@pytest.mark.parametrize("with_keys", [True, False])
async def test_the_private_listener_stands_in_for_no_certificate(tmp_path: Path, with_keys: bool) -> None:
    """Where callers come by certificate, a call by the socket has none, and is nobody's without a key."""
    bob = add_key(tmp_path / "keys.toml", "bob", CallerLimits()).text
    keys = KeyRing(tmp_path / "keys.toml") if with_keys else None
    async with private(tmp_path, Authentication(keys=keys, certificates=True)) as channel:
        assert await name(channel) is grpc.StatusCode.UNAUTHENTICATED
        assert await name(channel, bob) == ("bob" if with_keys else grpc.StatusCode.UNAUTHENTICATED)


async def test_a_socket_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """One line, with the target."""
    server = grpc.aio.server()
    with pytest.raises(StartupError, match="cannot listen on unix:"):
        bind_private(server, tmp_path / "missing" / "private.sock")
    await server.stop(0)
