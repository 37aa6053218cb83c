"""Access: how a client shows who it is, and knows whom it speaks to."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import grpc

from mondrian._channel import is_loopback

PemInput: TypeAlias = str | os.PathLike[str] | bytes
"""Something in PEM: a path, or the bytes."""


Metadata: TypeAlias = tuple[tuple[str, str], ...]
"""What calls carry besides their message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted connection."""

    ca: PemInput | None = None
    """The authorities to trust the server by, a path or bytes of PEM; None: those that gRPC brings along."""
    certificate: PemInput | None = None
    """The client's own certificate with its chain, for a server that asks for one."""
    key: PemInput | None = field(default=None, repr=False)
    """The private key of the certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What calls carry, and the credentials of the channel; None: plaintext."""

    metadata: Metadata = field(default=(), repr=False)
    credentials: grpc.ChannelCredentials | None = None


def make_access(address: str, api_key: str | None, tls: Tls | bool) -> Access:
    """Return the access to a server; raises ValueError where a key would be readable on the way, OSError for files."""
    metadata = (("authorization", f"Bearer {_checked(api_key)}"),) if api_key is not None else ()
    if metadata and not tls and not is_loopback(address):
        raise ValueError(f"an API key is not sent to {address} in the clear: use TLS (tls=True, or mondrian.Tls)")
    return Access(metadata=metadata, credentials=_credentials(tls if isinstance(tls, Tls) else Tls()) if tls else None)


def _checked(api_key: str) -> str:
    """Return the key as it can be sent; the error does not repeat it."""
    key = api_key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key is empty, or has characters that no key has")
    return key


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.certificate is None) != (tls.key is None):
        raise ValueError("tls: a certificate and its key go together")
    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.certificate))


def _read(pem: PemInput | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()
