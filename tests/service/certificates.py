"""Certificates: files for a service with TLS, and connections to it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import trustme

from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.app import running
from mondrian_server.settings import Settings
from tests.conditions import eventually
from tests.service.calls import Connection, Running

HOSTS = ("localhost", "127.0.0.1")


@dataclass(slots=True, kw_only=True)
class Authority:
    """Who signs certificates, for the server and for its clients, and where the server's files are."""

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)
    clients_ca: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        """Write the first files."""
        self.write_server(self.ca.issue_cert(*HOSTS))
        self.clients_ca.cert_pem.write_to_path(self.folder / "clients.pem")

    @property
    def settings(self) -> dict[str, Path]:
        """The settings of a server with TLS."""
        return {
            "tls_certificate_file": self.folder / "server.pem",
            "tls_key_file": self.folder / "server.key",
        }

    @property
    def mutual(self) -> dict[str, Path]:
        """The settings of a server that asks for client certificates as well."""
        return self.settings | {"tls_client_ca_file": self.folder / "clients.pem"}

    def write_server(self, leaf: trustme.LeafCert) -> None:
        """Put the server's certificate and key in place, one after the other as operators do."""
        for name, data in (("server.key", leaf.private_key_pem.bytes()), ("server.pem", chain_of(leaf))):
            part = self.folder / f"{name}.part"
            part.write_bytes(data)
            part.replace(self.folder / name)

    @contextlib.asynccontextmanager
    async def channel(self, port: int, client: trustme.LeafCert | None = None) -> AsyncGenerator[grpc.aio.Channel]:
        """Open a channel over TLS, with a client's certificate where there is one, on a connection of its own."""
        credentials = grpc.ssl_channel_credentials(
            self.ca.cert_pem.bytes(),
            client.private_key_pem.bytes() if client else None,
            chain_of(client) if client else None,
        )
        options: Any = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options=options) as channel:
            yield channel

    @contextlib.asynccontextmanager
    async def started(self, settings: Settings, client: trustme.LeafCert | None = None) -> AsyncGenerator[Running]:
        """Run a service with TLS and connect to it, once it serves."""
        async with running(settings) as service, self.channel(service.port, client) as channel:
            up = Running(service=service, channel=channel)
            await eventually(up.is_serving, within_s=60.0)
            yield up


def chain_of(leaf: trustme.LeafCert) -> bytes:
    """Return a certificate with its chain."""
    return b"".join(part.bytes() for part in leaf.cert_chain_pems)


async def certificate_shown(port: int) -> bytes:
    """Return the certificate that a server shows in a new handshake, in DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert shown is not None
    return shown


def der_of(leaf: trustme.LeafCert) -> bytes:
    """Return a certificate in DER."""
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


async def list_code(connection: Connection) -> grpc.StatusCode:
    """Ask for the caller's analyses and return the status code."""
    try:
        await connection.analyses.ListAnalyses(
            service_pb.ListAnalysesRequest(), metadata=connection.metadata, timeout=20
        )
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
