"""Files: pictures as large as wanted, damaged ones, and files that are no pictures."""

import io
import struct
import zipfile
import zlib

from tests.checkpoints import EMBEDDED

PNG = b"\x89PNG\r\n\x1a\n"


def sample(suffix: str) -> bytes:
    """Return a sample picture's file of a format."""
    return min((EMBEDDED / "samples").glob(f"*{suffix}")).read_bytes()


def png(width: int, height: int, *, size_bytes: int = 0) -> bytes:
    """Return a black PNG of one bit a pixel, as large as wanted in pixels and, by a chunk without meaning, in bytes."""
    rows = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join([rows.compress(row * height), rows.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    file = PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", body)
    end = _chunk(b"IEND", b"")
    empty = len(_chunk(b"paDd", b""))
    return file + _chunk(b"paDd", bytes(max(0, size_bytes - len(file) - len(end) - empty))) + end


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def archive() -> bytes:
    """Return a ZIP archive that holds a good picture."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archived:
        archived.writestr("composition.jpg", sample(".jpg"))
    return buffer.getvalue()


def half(suffix: str) -> bytes:
    """Return the first half of a sample picture's file."""
    whole = sample(suffix)
    return whole[: len(whole) // 2]


def png_with_text(text: str) -> bytes:
    """Return a small grey PNG whose file holds a text."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    comment = _chunk(b"tEXt", b"Comment\0" + text.encode())
    return PNG + header + comment + _chunk(b"IDAT", zlib.compress(bytes(9 * 8))) + _chunk(b"IEND", b"")
