"""Health: what follows engine and log, what does not, and that draining is final."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest_asyncio
from grpc_health.v1 import health_pb2

from mondrian_server.rpc.health import Health
from tests.conditions import eventually

FOLLOWING, STEADY = "x.Following", "x.Steady"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Clinic:
    """A health service on a free port, and a channel to it."""

    def __init__(self, health: Health, channel: grpc.aio.Channel) -> None:
        """Hold an open channel."""
        self.health = health
        self._check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._watch: Any = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    async def check(self, service: str) -> int:
        """Ask once."""
        answer = await self._check(health_pb2.HealthCheckRequest(service=service))
        return answer.status

    async def watch(self, service: str, seen: list[int]) -> None:
        """Write down what a watch says, until cancelled."""
        call = self._watch(health_pb2.HealthCheckRequest(service=service))
        try:
            while (answer := await call.read()) is not grpc.aio.EOF:
                seen.append(answer.status)
        finally:
            call.cancel()


@pytest_asyncio.fixture
async def clinic() -> AsyncGenerator[Clinic]:
    """Return a running health service whose engine is not ready."""
    health = Health(following=(FOLLOWING,), steady=(STEADY,))
    server = grpc.aio.server()
    health.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    running = asyncio.create_task(health.run())
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Clinic(health, channel)
    finally:
        running.cancel()
        await asyncio.wait((running,))
        await server.stop(None)


async def test_the_service_is_not_serving_before_the_engine_is_ready(clinic: Clinic) -> None:
    """From the first call on the whole and what follows the engine are NOT_SERVING; the rest serves."""
    assert [await clinic.check(service) for service in ("", FOLLOWING, STEADY)] == [NOT_SERVING, NOT_SERVING, SERVING]


async def test_a_watch_tells_each_change(clinic: Clinic) -> None:
    """Watchers hear the state at once, and then every turn of the engine."""
    seen: list[int] = []
    watching = asyncio.create_task(clinic.watch("", seen))
    await eventually(lambda: seen == [NOT_SERVING])
    clinic.health.set_engine_ready(True)
    await eventually(lambda: seen == [NOT_SERVING, SERVING])
    assert [await clinic.check(service) for service in ("", FOLLOWING, STEADY)] == [SERVING] * 3
    clinic.health.set_engine_ready(False)
    await eventually(lambda: seen == [NOT_SERVING, SERVING, NOT_SERVING])
    watching.cancel()
    await asyncio.wait((watching,))


async def test_a_log_that_keeps_nothing_is_as_bad_as_no_engine(clinic: Clinic) -> None:
    """The service serves only while the engine is ready and events can be kept; the catalogue serves anyway."""
    seen: list[int] = []
    watching = asyncio.create_task(clinic.watch(FOLLOWING, seen))
    clinic.health.set_engine_ready(True)
    await eventually(lambda: seen[-1:] == [SERVING])
    clinic.health.set_log_available(False)
    await eventually(lambda: seen[-1:] == [NOT_SERVING])
    clinic.health.set_engine_ready(False)
    clinic.health.set_engine_ready(True)
    assert [await clinic.check(service) for service in ("", FOLLOWING, STEADY)] == [NOT_SERVING, NOT_SERVING, SERVING]
    clinic.health.set_log_available(True)
    await eventually(lambda: seen[-1:] == [SERVING])
    watching.cancel()
    await asyncio.wait((watching,))


async def test_draining_is_final(clinic: Clinic) -> None:
    """Once the server ends, nothing serves, whatever the engine does."""
    clinic.health.set_engine_ready(True)
    seen: list[int] = []
    watching = asyncio.create_task(clinic.watch(FOLLOWING, seen))
    await eventually(lambda: seen[-1:] == [SERVING])
    await clinic.health.drain()
    await eventually(lambda: seen[-1:] == [NOT_SERVING])
    clinic.health.set_engine_ready(False)
    clinic.health.set_engine_ready(True)
    for _ in range(10):
        await asyncio.sleep(0)
    assert [await clinic.check(service) for service in ("", FOLLOWING, STEADY)] == [NOT_SERVING] * 3
    watching.cancel()
    await asyncio.wait((watching,))
