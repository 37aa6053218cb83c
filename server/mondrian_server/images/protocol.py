"""Image protocol: the frames between the server and the image process.

The server sends `Configure` once and the process answers `Ready`; after that each `Decode` gets one `Decoded` or
`Refused` with the same id, in order.
"""

from typing import TypeAlias

from msgspec import Struct

from mondrian_server.pictures import Picture

MEBIBYTE = 1024 * 1024


class ImageLimits(Struct, frozen=True, kw_only=True):
    """What one image may cost.

    max_image_bytes, max_pixels: the most of an image as it comes.
    max_aspect_ratio: how many times the longer side may be the shorter one; models fail on thinner strips.
    max_normalised_pixels: the most of a picture after normalisation; larger images are scaled down.
    decode_limit_s: the longest that one image may take in the process.
    memory_limit_bytes: the process's address space, where the platform can bound it.
    start_limit_s: the longest that the process may take to start.
    """

    max_image_bytes: int = 20 * MEBIBYTE
    max_pixels: int = 50_000_000
    max_aspect_ratio: int = 200
    max_normalised_pixels: int = 1024 * 1024
    decode_limit_s: float = 10.0
    memory_limit_bytes: int = 1536 * MEBIBYTE
    start_limit_s: float = 30.0


class Configure(Struct, frozen=True, kw_only=True, tag=True):
    """The first frame to the process."""

    limits: ImageLimits


class Decode(Struct, frozen=True, kw_only=True, tag=True):
    """One image file to normalise."""

    id: int
    data: bytes


ToImages: TypeAlias = Configure | Decode


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """The process has its limits and takes images."""


class Decoded(Struct, frozen=True, kw_only=True, tag=True):
    """An image became a picture."""

    id: int
    picture: Picture


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """An image was not accepted; `message` says what was found and what is accepted."""

    id: int
    message: str


FromImages: TypeAlias = Ready | Decoded | Refused
