"""Files: images of every kind that the tests send, most of them made with Pillow and some broken by hand."""

import io
import struct
import zlib
from typing import Any

from PIL import Image

ORIENTATION_TAG = 0x0112
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF")
"""What Pillow can write of the formats that are accepted; for HEIC there is `containers`."""
NAMES = {"WEBP": "WebP"}
"""What callers call a format, where that is not Pillow's name."""
FAITHFUL: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
"""Options with which a format keeps the colours that it is given."""


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"speed": 10} if kind == "AVIF" else {}), **options)
    return buffer.getvalue()


def corners(width: int = 40, height: int = 20) -> Image.Image:
    """Return a picture whose four quarters differ, so that each orientation shows."""
    image = Image.new("RGB", (width, height), (250, 0, 0))
    image.paste((0, 250, 0), (width // 2, 0, width, height // 2))
    image.paste((0, 0, 250), (0, height // 2, width // 2, height))
    image.paste((250, 250, 0), (width // 2, height // 2, width, height))
    return image


def noise(width: int, height: int) -> Image.Image:
    """Return a picture that does not compress, the same at each call."""
    state = bytearray()
    value = 1
    while len(state) < 4096:
        value = value * 6364136223846793005 + 1442695040888963407 & 0xFFFFFFFFFFFFFFFF
        state += value.to_bytes(8, "little")
    size = width * height * 3
    return Image.frombytes("RGB", (width, height), bytes(state * (size // len(state) + 1))[:size])


def oriented(image: Image.Image, orientation: int, kind: str = "PNG") -> bytes:
    """Return a file whose EXIF says how it is to be turned."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return encoded(image, kind, exif=exif, **FAITHFUL.get(kind, {}))


def png(width: int, height: int, *, bits: int = 1, pixels: bytes | None = None) -> bytes:
    """Return a greyscale PNG of any size; without `pixels` it is black, and small however many pixels it has."""
    if pixels is None:
        rows = zlib.compressobj(9)
        row = bytes(1 + (width * bits + 7) // 8)
        pixels = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def webp_canvas(width: int, height: int) -> bytes:
    """Return the extended header of a WebP file of any size, with nothing behind it."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(screen: tuple[int, int], frame: tuple[int, int, int, int], *, disposal: int = 0) -> bytes:
    """Return a GIF of a screen and a frame (left, top, width, height) of any size, with nothing behind the header."""
    control = b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
    screen_part = b"GIF89a" + struct.pack("<HH", *screen) + b"\xf0\0\0" + b"\0\0\0\xff\xff\xff"
    return screen_part + control + b"," + struct.pack("<HHHH", *frame) + b"\0\x02\x01\x44\0;"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
