"""Serving: the gateway on a socket of its own, from its start to an end in which streams say goodbye."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any

import grpc
import uvicorn

from mondrian_server.gateway.app import create_app
from mondrian_server.gateway.connection_limits import limited_protocol
from mondrian_server.gateway.event_stream import Streams
from mondrian_server.gateway.options import GatewayOptions

_BACKLOG = 1024
_KEEP_ALIVE_S = 60
_MAX_HEAD_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway that is up."""

    port: int
    streams: Streams


class _Server(uvicorn.Server):
    """A server that leaves signals to its process, and says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.up.set()


@contextlib.asynccontextmanager
async def gateway(
    address: str,
    channel: grpc.aio.Channel,
    options: GatewayOptions,
    *,
    tls: ssl.SSLContext | None = None,
    grace_s: float = 5.0,
) -> AsyncGenerator[Gateway]:
    """Serve inside a `with` block; at its end every stream is ended, and answered requests may finish.

    Args:
        address: `host:port`; port 0 takes a free one.
        channel: the way to the server.
        options: how the gateway looks to its callers.
        tls: serve HTTPS by this context, which may be loaded anew meanwhile.
        grace_s: how long requests may take to finish at the end.

    Raises:
        OSError: the address cannot be used.

    """
    streams = Streams()
    with listen(address) as listener:
        server = _Server(_config(create_app(channel, streams, options), options, tls, grace_s))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await _until_up(server, serving)
            yield Gateway(port=listener.getsockname()[1], streams=streams)
        finally:
            streams.close()
            server.should_exit = True
            await serving


async def _until_up(server: _Server, serving: "asyncio.Task[None]") -> None:
    """Wait until the server is up; raises what kept it from that."""
    up = asyncio.create_task(server.up.wait())
    await asyncio.wait((up, serving), return_when=asyncio.FIRST_COMPLETED)
    up.cancel()
    if serving.done():
        serving.result()


@contextlib.contextmanager
def listen(address: str) -> Generator[socket.socket]:
    """Listen on `host:port` inside the block; raises OSError if that cannot be."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, int(port)), family=family, backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        yield listener


def _config(app: Any, options: GatewayOptions, tls: ssl.SSLContext | None, grace_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=limited_protocol(options.limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(grace_s)),
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        ssl_context_factory=(lambda _config, _default: tls) if tls else None,
    )
