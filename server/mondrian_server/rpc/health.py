"""Health: tells the truth about the engine, by `grpc.health.v1`."""

import asyncio
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2

from mondrian_server.rpc.reception import Context, Reception
from mondrian_server.rpc.registration import register

HEALTH_SERVICE = cast("ServiceDescriptor", health_pb2.DESCRIPTOR.services_by_name["Health"])

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health of the server as a whole (`""`) and of each service.

    The whole and `mondrian.v1.AnalysisService` are SERVING while the engine is ready and events can be kept; the
    catalogue services as long as the server takes calls.
    """

    def __init__(self, following: tuple[str, ...], steady: tuple[str, ...]) -> None:
        """Name the services that follow the engine, and those that do not."""
        # grpcio-health-checking carries no types, and sets `aio` in a way that checkers cannot follow.
        self._servicer: Any = vars(grpc_health)["aio"].HealthServicer()
        self._following = ("", *following)
        self._steady = steady
        self._engine_ready = False
        self._log_available = True
        self._changed = asyncio.Event()

    def register(self, server: grpc.aio.Server, reception: Reception | None = None) -> None:
        """Put the health service on a server; what cannot be parsed is INVALID_ARGUMENT here too."""
        register(server, HEALTH_SERVICE, _Methods(self._servicer), reception)

    def set_engine_ready(self, ready: bool) -> None:
        """Note whether the engine is ready; watchers are told by `run`."""
        self._engine_ready = ready
        self._changed.set()

    def set_log_available(self, available: bool) -> None:
        """Note whether events can be kept; watchers are told by `run`."""
        self._log_available = available
        self._changed.set()

    async def run(self) -> None:
        """Publish changes until cancelled."""
        for service in self._steady:
            await self._servicer.set(service, _SERVING)
        while True:
            self._changed.clear()
            status = _SERVING if self._engine_ready and self._log_available else _NOT_SERVING
            for service in self._following:
                await self._servicer.set(service, status)
            await self._changed.wait()

    async def drain(self) -> None:
        """Be NOT_SERVING from now on."""
        await self._servicer.enter_graceful_shutdown()


class _Methods:
    """The methods of the service; grpcio-health-checking 1.85 knows no `List`."""

    def __init__(self, servicer: Any) -> None:
        self.Check = servicer.Check
        self.Watch = servicer.Watch

    async def List(self, _: object, context: Context) -> None:  # noqa: N802  # gRPC's name
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "List is not served; ask for one service by Check")
