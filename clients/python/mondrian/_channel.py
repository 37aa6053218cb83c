"""The connection: how a channel to the server behaves, the same for both clients."""

import ipaddress

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""Where `mondrian serve` listens by default."""

_KEEPALIVE_MS = 30_000
_KEEPALIVE_TIMEOUT_MS = 10_000
_CONNECT_TIMEOUT_MS = 5_000
_FIRST_RECONNECT_MS = 200
_MAX_RECONNECT_MS = 2_000
_MAX_RECEIVE_BYTES = 64 * 1024 * 1024


def channel_options(address: str) -> list[tuple[str, str | int]]:
    """Return gRPC's options for a channel to `address`.

    A dead connection is noticed within 40 s while a call is open; the pings stay above the 15 s that the server allows.
    A host that does not answer is given up after 5 s. Requests may have any size: the server says what it takes.
    """
    return [
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),  # an analysis may be silent for long
        ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS),  # gRPC's name for the least time given to a connect
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_MS),
        ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0 if is_loopback(address) else 1),
    ]


def is_loopback(address: str) -> bool:
    """Tell whether the address is on this machine; no proxy of the environment is asked then."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost" or address.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
