"""The form in which a log keeps events: msgpack with a checksum, for every store alike."""

import zlib
from typing import Any

import msgspec

from mondrian_server.errors import InternalError, MondrianError
from mondrian_server.events import Completed, Payload, Terminal

_CHECKSUM_BYTES = 4


class Damaged(Exception):
    """What was kept is not what was written."""


class _StoredError(msgspec.Struct, frozen=True, kw_only=True):
    """A MondrianError as data; its class is found again by its reason."""

    reason: str
    message: str
    field: str = ""
    retry_after_s: float | None = None


def seal(data: bytes) -> bytes:
    """Add a checksum."""
    return data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little")


def unseal(sealed: bytes) -> bytes:
    """Check and remove the checksum; raises Damaged."""
    data, checksum = sealed[:-_CHECKSUM_BYTES], sealed[-_CHECKSUM_BYTES:]
    if zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little") != checksum:
        raise Damaged("a kept value does not match its checksum")
    return data


def encode_payload(payload: Payload) -> bytes:
    """Return an event's payload as sealed bytes."""
    return seal(_ENCODER.encode(payload))


def decode_payload(sealed: bytes) -> Payload:
    """Return the payload that was encoded; raises Damaged."""
    try:
        return _DECODER.decode(unseal(sealed))
    except msgspec.MsgspecError as error:
        raise Damaged(f"a kept event cannot be read: {error}") from error


def encode_terminal(terminal: Terminal) -> bytes:
    """Return a terminal payload without its text, which is kept beside it."""
    if isinstance(terminal, Completed):
        terminal = msgspec.structs.replace(terminal, text="")
    return encode_payload(terminal)


def decode_terminal(sealed: bytes, text: str) -> Terminal:
    """Return a terminal payload with its text; raises Damaged."""
    match decode_payload(sealed):
        case Completed() as completed:
            return msgspec.structs.replace(completed, text=text)
        case payload if isinstance(payload, Terminal):
            return payload
        case payload:
            raise Damaged(f"{type(payload).__name__} is kept as the end of an analysis")


def _to_data(value: object) -> object:
    if isinstance(value, MondrianError):
        return _StoredError(
            reason=value.reason, message=value.message, field=value.field, retry_after_s=value.retry_after_s
        )
    raise NotImplementedError(f"{type(value).__name__} cannot be kept")


def _from_data(kind: type, data: Any) -> object:
    if not issubclass(kind, MondrianError):
        raise NotImplementedError(f"{kind.__name__} cannot be kept")
    stored = msgspec.convert(data, _StoredError)
    return _error_class(stored.reason)(stored.message, field=stored.field, retry_after_s=stored.retry_after_s)


def _error_class(reason: str) -> type[MondrianError]:
    """Return the class of a reason; of one that this version does not know, an InternalError that names it."""
    found = next((kind for kind in _tree(MondrianError) if kind.reason == reason and kind is not MondrianError), None)
    return found or type("UnknownError", (InternalError,), {"reason": reason})


def _tree(root: type[MondrianError]) -> list[type[MondrianError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _tree(child))]


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_data)
_DECODER: msgspec.msgpack.Decoder[Payload] = msgspec.msgpack.Decoder(Payload, dec_hook=_from_data)
