"""TLS: the server's certificate and the authorities of its clients, taken again when their files change.

Connections that are open keep what they began with. Each handshake after a change takes the new files, unless they are
broken: then the old ones stay.
"""

import asyncio
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import structlog

from mondrian_server.errors import StartupError
from mondrian_server.file_watch import FileWatch

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where the certificate with its chain, its key and the clients' authorities stand, in PEM."""

    certificate: Path
    key: Path
    client_ca: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)


class Tls:
    """What the server shows, and asks of its clients, in a handshake."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files; raises StartupError in one line."""
        self._files = files
        self._watch = FileWatch(files.paths)
        self._first = _configuration(files)
        self._lock = threading.Lock()
        self._next: grpc.ServerCertificateConfiguration | None = None

    @classmethod
    def open(cls, files: TlsFiles | None) -> Self | None:
        """Return what is made of the files, or None where the server has none; raises StartupError."""
        return None if files is None else cls(files)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files while `run` does."""
        fetch: Any = self._take_next  # types-grpcio does not know that None stands for no change
        return grpc.dynamic_ssl_server_credentials(
            self._first, fetch, require_client_authentication=self._files.client_ca is not None
        )

    async def run(self) -> None:
        """Take the files again whenever they change, until cancelled."""
        while True:
            await self._watch.changed()
            try:
                configuration = await asyncio.to_thread(_configuration, self._files)
            except StartupError as error:
                _log.error("the TLS files cannot be used; those read before stay in force", problem=str(error))
            else:
                with self._lock:
                    self._next = configuration
                _log.info("TLS files reloaded")

    def _take_next(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the next handshakes are to use, None for what they used; gRPC asks on threads of its own."""
        with self._lock:
            configuration, self._next = self._next, None
        return configuration


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Return what the files say, in the form for gRPC; raises StartupError."""
    certificate, key, client_ca = contents = _contents(files)
    _check(files)
    if contents != _contents(files):  # What was checked is not what was read; the next look takes the rest.
        raise StartupError("tls_certificate_file, tls_key_file: the files changed while they were read")
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=client_ca)


def _contents(files: TlsFiles) -> tuple[bytes, bytes, bytes | None]:
    return (
        _read(files.certificate, "tls_certificate_file"),
        _read(files.key, "tls_key_file"),
        None if files.client_ca is None else _read(files.client_ca, "tls_client_ca_file"),
    )


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"{setting}: {path} cannot be read: {error.strerror}") from error


def _check(files: TlsFiles) -> None:
    """Refuse what gRPC would refuse only in each handshake, and without a word."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password, wrong as it is, OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, OSError) as error:
        raise StartupError(
            f"tls_certificate_file, tls_key_file: {files.certificate} and {files.key} are not a certificate and "
            f"its key in PEM, without a password ({_reason(error)})"
        ) from error
    try:
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
    except (ssl.SSLError, OSError) as error:
        raise StartupError(
            f"tls_client_ca_file: {files.client_ca} holds no certificates in PEM ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """Return OpenSSL's word for it; its sentences name lines of its own source."""
    return (error.reason if isinstance(error, ssl.SSLError) else None) or type(error).__name__
