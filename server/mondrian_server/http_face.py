"""The HTTP face: the gateway as the settings ask for it, beside the server or as a process of its own."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import grpc
import structlog
from setproctitle import setproctitle

from mondrian_server.errors import StartupError
from mondrian_server.gateway.connection import open_channel
from mondrian_server.gateway.guard import host_name
from mondrian_server.gateway.options import GatewayOptions, Limits
from mondrian_server.gateway.serving import Gateway, gateway
from mondrian_server.https import Https
from mondrian_server.metrics import process_metrics, versions
from mondrian_server.settings import Settings, embedded_model, embedded_page
from mondrian_server.signals import let_signals_end_the_process, stop_signal

_log = structlog.stdlib.get_logger(__name__)


def serve_gateway(
    settings: Settings,
    target: str,
    *,
    target_ca: bytes | None = None,
    keys_needed: bool = False,
    announce: Callable[[Gateway], None] | None = None,
) -> int:
    """Serve a gateway alone until SIGTERM or SIGINT and return the exit status.

    Args:
        settings: what the operator decided; only those of HTTP and of logs count.
        target: `host:port` of the server's gRPC.
        target_ca: the certificates to trust the server by, as PEM; None: the connection is not encrypted.
        keys_needed: refuse requests without a key at once.
        announce: called once the gateway listens.

    Raises:
        StartupError: the gateway cannot start; the message says why in one line.

    """
    setproctitle("mondrian: gateway")
    options = replace(_options(settings, process_metrics(versions())), keys_needed=keys_needed)
    return asyncio.run(_serve_gateway(settings, lambda: open_channel(target, ca=target_ca), options, announce))


async def _serve_gateway(
    settings: Settings,
    connect: Callable[[], grpc.aio.Channel],
    options: GatewayOptions,
    announce: Callable[[Gateway], None] | None,
) -> int:
    stop = stop_signal()
    async with connect() as channel, _serving(settings, channel, options) as serving:
        if announce:
            announce(serving)
        _log.info("listening", http_port=serving.port)
        await stop.wait()
        _log.info("stopping", streams=len(serving.streams))
        let_signals_end_the_process()
    _log.info("stopped")
    return 0


@contextlib.asynccontextmanager
async def http_face(
    settings: Settings, channel: grpc.aio.Channel, *, metrics: Callable[[], bytes] | None = None
) -> AsyncGenerator[Gateway]:
    """Run the gateway inside a `with` block; raises StartupError where it cannot listen.

    Args:
        settings: what the operator decided.
        channel: the way to the server.
        metrics: gives what `/metrics` shows; None: nothing.

    """
    async with _serving(settings, channel, _options(settings, metrics)) as serving:
        yield serving


@contextlib.asynccontextmanager
async def _serving(settings: Settings, channel: grpc.aio.Channel, options: GatewayOptions) -> AsyncGenerator[Gateway]:
    https = _https(settings)
    async with contextlib.AsyncExitStack() as stack:
        serving = gateway(settings.http_address, channel, options, tls=https.context if https else None)
        try:
            up = await stack.enter_async_context(serving)
        except OSError as error:
            reason = error.strerror or error
            raise StartupError(
                f"http_address: cannot listen on {settings.http_address}: {reason}; "
                "name another with --http-address, or '' for none"
            ) from error
        following = asyncio.create_task(https.run()) if https else None
        try:
            yield up
        finally:
            if following is not None:
                following.cancel()


def _options(settings: Settings, metrics: Callable[[], bytes] | None) -> GatewayOptions:
    names = (host_name(settings.http_address), *settings.http_allowed_hosts)
    return GatewayOptions(
        limits=Limits(max_connections=settings.http_max_connections),
        keys_needed=settings.keys_file is not None,
        allowed_hosts=frozenset(name.lower() for name in names),
        cors_origins=settings.http_cors_origins,
        web_folder=embedded_page(),
        samples_folder=embedded_model() / "samples",
        metrics=metrics,
    )


def _https(settings: Settings) -> Https | None:
    certificate, key = settings.http_tls_certificate_file, settings.http_tls_key_file
    return Https(certificate, key) if certificate and key else None
