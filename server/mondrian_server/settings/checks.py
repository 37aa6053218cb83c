"""Checks: rules of single settings, and of settings together, that a type cannot state."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mondrian_server.settings.embedded import EMBEDDED_MODEL_ID

_NOT_URL_SAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_MODEL_ID_CHARACTERS = 63
_PORTS = range(65536)


def host_and_port(address: str) -> str:
    """Return `host:port` as given; raises ValueError for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) not in _PORTS:
        raise ValueError("must be host:port, such as 127.0.0.1:50051")
    return address


def host_and_port_or_none(address: str) -> str:
    """Return `host:port` as given, or empty, which stands for none; raises ValueError for anything else."""
    return host_and_port(address) if address else ""


def is_loopback(address: str) -> bool:
    """Return whether the host of `host:port` is this machine's loopback."""
    host = address.rpartition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def home_expanded(path: Path) -> Path:
    """Return the path with a leading `~` replaced; raises ValueError where there is no such home folder."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("names a home folder that does not exist") from error


def bits_of_keys_and_values(bits: int) -> int:
    """Return the bits of the key-value cache as given; raises ValueError for what MLX cannot pack."""
    if bits not in (0, 2, 3, 4, 6, 8):
        raise ValueError("must be 0, 2, 3, 4, 6 or 8")
    return bits


def group_of_keys_and_values(size: int) -> int:
    """Return the group size of the key-value cache as given; raises ValueError for one that MLX does not know."""
    if size not in (32, 64, 128):
        raise ValueError("must be 32, 64 or 128")
    return size


def no_draft_model(name: str) -> str:
    """Return the empty name; raises ValueError for every other."""
    if name:
        raise ValueError(
            "cannot be used: in mlx-vlm 0.7.10 no analysis can join a batch that a draft model speculates for"
        )
    return name


def derived_model_id(validated: Mapping[str, Any]) -> str:
    """Return a resource id for the model: the last component of its path or name, made URL-safe."""
    model = validated.get("model")
    if not model:
        return EMBEDDED_MODEL_ID
    name = Path(model).name or Path(model).resolve().name
    return _NOT_URL_SAFE.sub("-", name).strip("-._")[:_MAX_MODEL_ID_CHARACTERS] or "model"


_ORDERED = (
    ("engine_restart_backoff_s", "engine_restart_backoff_max_s"),
    ("max_image_bytes", "max_request_image_bytes"),
    ("max_request_image_bytes", "max_waiting_bytes"),
)
"""Pairs of settings of which the first may not be greater than the second."""


def out_of_order(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of settings whose first is greater than its second."""
    return ((low, high) for low, high in _ORDERED if values[low] > values[high])


def conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each setting that does not go with the others, and what it must be, as a line goes on."""
    keys, certificates = values["keys_file"], values["tls_client_ca_file"]
    if not is_loopback(values["grpc_address"]) and not (keys or certificates):
        yield (
            "grpc_address",
            f"{_LOOPBACK}, not {values['grpc_address']!r}, because callers have neither keys (keys_file) nor client "
            "certificates (tls_client_ca_file)",
        )
    if values["http_address"] and not is_loopback(values["http_address"]) and not keys:
        yield (
            "http_address",
            f"{_LOOPBACK}, not {values['http_address']!r}, because callers have no keys (keys_file)",
        )
    yield from _incomplete(values)


def conflicts_of_gateway(values: Mapping[str, Any], *, target_has_keys: bool) -> Iterator[tuple[str, str]]:
    """Yield the same for a gateway by itself, whose callers have the keys that its server has."""
    address = values["http_address"]
    if not address:
        yield "http_address", "must not be empty: a gateway needs a place to listen"
    elif not is_loopback(address) and not target_has_keys:
        yield "http_address", f"{_LOOPBACK}, not {address!r}, unless the server has keys (--target-has-keys)"
    yield from _incomplete(values)


def _incomplete(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for given, needed in _NEEDED:
        if values[given] and not values[needed]:
            yield given, f"needs {needed} beside it"


_LOOPBACK = "must be a loopback host (127.0.0.1, [::1] or localhost)"
_NEEDED = (
    ("tls_certificate_file", "tls_key_file"),
    ("tls_key_file", "tls_certificate_file"),
    ("http_tls_certificate_file", "http_tls_key_file"),
    ("http_tls_key_file", "http_tls_certificate_file"),
    ("tls_client_ca_file", "tls_certificate_file"),
)
"""Pairs of settings of which the first is of no use without the second."""
