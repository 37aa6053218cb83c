"""Specs: what an analysis is to do, in the form in which the log keeps it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import msgspec
from msgspec import Struct

from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.analyses.resolution import Resolved


class Spec(Struct, frozen=True, kw_only=True):
    """Everything that an analysis needs besides its images, also after a restart of the server.

    request: as asked for, without the bytes of the images.
    image_bytes: what its image files have in all.
    deadline_time_s: when it must end, in seconds since the epoch; None: no limit.
    disconnect_grace_s: how long it goes on when the call that made it has gone; None: it was made detached.
    """

    request: AnalysisRequest
    resolved: Resolved
    image_count: int
    image_bytes: int = 0
    deadline_time_s: float | None = None
    disconnect_grace_s: float | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Spec)


def encode_spec(spec: Spec) -> bytes:
    """Return the spec as bytes."""
    return _encoder.encode(spec)


def decode_spec(data: bytes) -> Spec:
    """Return the spec of bytes that `encode_spec` gave; raises `msgspec.MsgspecError` for others."""
    return _decoder.decode(data)


def digest_of(request: AnalysisRequest, images: Sequence[bytes]) -> bytes:
    """Return a digest of everything that was asked for, whoever asks and under whatever request id."""
    plain = replace(request, images=(), request_id="", caller="")
    digest = hashlib.sha256(_encoder.encode(plain))
    for image in images:
        digest.update(hashlib.sha256(image).digest())
    return digest.digest()
