"""HEIC headers: what must be right before the decoder's binding sees it, because it would end the process.

Layout: ISO/IEC 14496-12, sections 4.2 (boxes) and 8.11.6 (item information).
"""

from collections.abc import Iterator

_TYPE_OFFSETS = {2: 8, 3: 10}
"""Where an item's type stands in its entry, by the entry's version; older versions have none."""


def check_item_names(data: bytes) -> None:
    """Raise UnicodeDecodeError unless the types and names of all items are text, as the format has it.

    pi-heif 1.4.0 makes strings of them and does not look whether it could: it crashes.
    """
    for start, end in _boxes(data, 0, len(data), b"meta"):
        for entries, entries_end in _boxes(data, start + 4, end, b"iinf"):
            counted = 6 if data[entries : entries + 1] == b"\0" else 8
            for entry, entry_end in _boxes(data, entries + counted, entries_end, b"infe"):
                offset = _TYPE_OFFSETS.get(data[entry] if entry < entry_end else 0, entry_end)
                data[entry + offset : entry_end].decode()


def _boxes(data: bytes, start: int, end: int, kind: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the content of each box of a kind begins and ends."""
    while start + 8 <= end:
        head, length = 8, int.from_bytes(data[start : start + 4], "big")
        if length == 1:
            head, length = 16, int.from_bytes(data[start + 8 : start + 16], "big")
        stop = min(start + length, end) if length else end
        if data[start + 4 : start + 8] == kind:
            yield start + head, stop
        start = max(stop, start + head)
