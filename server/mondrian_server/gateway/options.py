"""Options: who may call the gateway, what it serves beside the API, and how much it takes, as values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that one caller may cost, and how long the gateway waits for whom."""

    max_multipart_bytes: int = 25 * MEBIBYTE
    """The largest body of files and fields."""
    max_json_bytes: int = 33 * MEBIBYTE
    """The largest body of JSON, whose images are a third larger than their files."""
    max_bodies_bytes: int = 512 * MEBIBYTE
    """The most memory that the bodies being read may take together."""
    max_connections: int = 1000
    """The most connections that are served at once, idle ones included."""
    max_parts: int = 64
    """The most files and fields in one body."""
    body_idle_s: float = 30.0
    """How long a body may stand still."""
    body_limit_s: float = 300.0
    """How long a body may take in all."""
    head_limit_s: float = 15.0
    """How long the head of a request may take."""
    send_limit_s: float = 60.0
    """How long a client may leave an event in the gateway's buffers."""

    call_limit_s: float = 30.0
    """How long the server may take to answer a call that is no stream."""
    attach_limit_s: float = 10.0
    """How long a new stream or a new analysis waits for a server that cannot be reached."""
    reattach_limit_s: float = 120.0
    """How long a stream that has begun waits for a server that it has lost, counted from the last event."""
    disconnect_grace_s: int = 30
    """How long the analysis of `POST /v1/analyze` goes on after its client is lost."""
    comment_interval_s: float = 15.0
    """How often a comment keeps the connection of a stream open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """How a gateway looks to its callers."""

    allowed_hosts: frozenset[str] = frozenset()
    """Names in `Host` that are served beside those of loopback, in lower case and without a port. `*`: all."""
    keys_needed: bool = False
    """Whether the server has keys: then requests for the API or the metrics without one are refused at once, and the
    server is asked about one before a body is read."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser, such as `https://example.org`. `*`: all."""
    web_folder: Path | None = None
    """The page at `/`; None: there is none."""
    samples_folder: Path | None = None
    """Sample pictures, served at `/samples/`; None: there are none."""
    metrics: Callable[[], bytes] | None = None
    """Gives the metrics as Prometheus text; None: `/metrics` is not found."""
    limits: Limits = field(default_factory=Limits)
