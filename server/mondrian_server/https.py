"""HTTPS: the gateway's certificate, taken again when its files change.

Connections that are open keep what they began with. Each handshake after a change takes the new files, unless they are
broken: then the old ones stay.
"""

import asyncio
import ssl
from pathlib import Path

import structlog

from mondrian_server.errors import StartupError
from mondrian_server.file_watch import FileWatch

_log = structlog.stdlib.get_logger(__name__)


class Https:
    """A context for handshakes that follows its files while `run` does."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files; raises StartupError in one line."""
        self._certificate = certificate
        self._key = key
        self._watch = FileWatch((certificate, key))
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.set_alpn_protocols(["http/1.1"])
        self._load(self.context)

    async def run(self) -> None:
        """Take the files again whenever they change, until cancelled."""
        while True:
            await self._watch.changed()
            try:
                # A pair that does not fit would leave the context half loaded.
                await asyncio.to_thread(self._load, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
                self._load(self.context)
            except StartupError as error:
                _log.error("the HTTPS files cannot be used; those read before stay in force", problem=str(error))
            else:
                _log.info("HTTPS files reloaded")

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # With a password, wrong as it is, OpenSSL does not ask for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, password="")
        except OSError as error:
            reason = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or type(error).__name__
            raise StartupError(
                f"http_tls_certificate_file, http_tls_key_file: {self._certificate} and {self._key} are not a "
                f"certificate and its key in PEM, without a password ({reason})"
            ) from error
