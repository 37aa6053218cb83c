"""Certificates: whether a certificate and its key can be used, and for how long. Nothing of them is shown."""

import socket
import ssl
import time
from pathlib import Path

from mondrian_server.doctor.finding import Finding, ok, problem, warning

_DAY_S = 86_400
_SOON_DAYS = 14
_HANDSHAKE_TURNS = 4
_RENEW = "renew it; a server that runs takes the new files by itself"


def find_certificate(check: str, certificate: Path, key: Path) -> Finding:
    """Return whether a certificate and its key can be read, belong together and are valid now."""
    for file in (certificate, key):
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            return problem(check, f"{file} cannot be read: {error.strerror}", "name files that this user may read")
    try:
        left_days = _left_days(certificate, key)
    except ssl.SSLCertVerificationError as error:
        return problem(check, f"{certificate}: {error.verify_message}", _RENEW)
    except ssl.SSLError as error:
        text = f"{certificate} and {key} are no certificate and its key ({error.reason or 'not PEM'})"
        return problem(check, text, "name PEM files, without a password, of one certificate and of its own key")
    text = f"{certificate} and its key are whole, and valid for {left_days:,.0f} days"
    return ok(check, text) if left_days >= _SOON_DAYS else warning(check, text, _RENEW)


def shown_at(host: str, port: int, timeout_s: float) -> bytes | None:
    """Return the certificate (DER) that a server shows, or None where none speaks TLS there."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            with trusting_context().wrap_socket(connection) as tls:
                return tls.getpeercert(binary_form=True)
    except OSError:
        return None


def is_shown(certificate: Path, shown: bytes | None) -> bool:
    """Return whether a server shows the certificate of a file."""
    try:
        text = certificate.read_text(encoding="ascii")
        first = text[text.index(ssl.PEM_HEADER) : text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]
        return shown is not None and ssl.PEM_cert_to_DER_cert(first) == shown
    except (OSError, ValueError):
        return False


def _left_days(certificate: Path, key: Path) -> float:
    """Return how long the certificate is valid, by a handshake in memory, which checks all that a client would."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key, password="")  # Else OpenSSL would ask for one on the terminal.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    _shake_hands(asking, server.wrap_bio(to_server, to_client, server_side=True))
    until = (asking.getpeercert() or {})["notAfter"]
    return (ssl.cert_time_to_seconds(str(until)) - time.time()) / _DAY_S


def _shake_hands(*ends: ssl.SSLObject) -> None:
    for _ in range(_HANDSHAKE_TURNS):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def trusting_context() -> ssl.SSLContext:
    """Return a context that takes any certificate: for asking who is there, never for telling anything."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
