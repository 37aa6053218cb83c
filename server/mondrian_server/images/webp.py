"""WebP headers: the size of a WebP image before its decoder takes memory for the canvas.

Layout: RFC 9649, sections 2.5 (simple, lossy), 2.6 (simple, lossless) and 2.7 (extended).
"""


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height as the header gives them, or None where there is no such header."""
    header = data[:30]
    if len(header) < 30:
        return None
    match header[12:16]:
        case b"VP8 " if header[23:26] == b"\x9d\x01\x2a":
            return _number(header, 26, 2) & 0x3FFF, _number(header, 28, 2) & 0x3FFF
        case b"VP8L" if header[20:21] == b"\x2f":
            bits = _number(header, 21, 4)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return _number(header, 24, 3) + 1, _number(header, 27, 3) + 1
        case _:
            return None


def _number(header: bytes, start: int, count: int) -> int:
    return int.from_bytes(header[start : start + count], "little")
