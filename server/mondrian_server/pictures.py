"""Pictures: images after normalisation, the only form in which anything but the image process sees them."""

from msgspec import Struct


class Picture(Struct, frozen=True, kw_only=True):
    """A normalised picture: oriented, without metadata, within the pixel limit.

    `pixels` is (height, width, 3) uint8, RGB, in row order; `digest` is the SHA-256 of width, height and pixels.
    """

    width: int
    height: int
    pixels: bytes
    digest: bytes
