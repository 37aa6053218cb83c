"""GIF headers: the size of a GIF image before its decoder takes memory for the first frame.

Layout: GIF89a specification, sections 18 (logical screen), 20 (image descriptor) and 15 (data sub-blocks).
"""

import struct

_EXTENSION, _IMAGE, _TRAILER = b"!,;"


def gif_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of what the screen and the first frame cover, or None where there is no frame."""
    start = _first_frame(data)
    if start is None or len(data) < start + 9:
        return None
    width, height = struct.unpack_from("<HH", data, 6)
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, start + 1)
    return max(width, left + frame_width), max(height, top + frame_height)


def _first_frame(data: bytes) -> int | None:
    """Return where the first image descriptor begins."""
    at = 13 + _palette_bytes(data[10:11])
    while at < len(data) and data[at] != _TRAILER:
        if data[at] == _IMAGE:
            return at
        at = _after_blocks(data, at + 2) if data[at] == _EXTENSION else at + 1
    return None


def _palette_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1
