"""Containers: HEIC files of any size and shape, built around the coded picture of a file that is kept.

Layout: ISO/IEC 14496-12 (boxes, items) and 23008-12 (image items and their properties).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KEPT = Path(__file__).parent / "kept"
CORNERS = (KEPT / "corners.heic").read_bytes()
"""`corners(128, 64)`, with the coded picture from which all others are built."""
WIDTH, HEIGHT = 128, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An item of the container. Its number is its place, from 1; `tiles` are the numbers of a grid's tiles.

    `rest` is what its entry says behind the kind: its name and, of some kinds, more.
    """

    kind: bytes
    data: bytes
    rest: bytes = b"\0"
    properties: Sequence[bytes] = ()
    tiles: Sequence[int] = ()
    describes: int | None = None


def heic(
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    brands: Sequence[bytes] = (b"heic", b"mif1", b"heic"),
    properties: Sequence[bytes] = (),
    exif: bytes | None = None,
) -> bytes:
    """Return the kept picture in a container that claims a size and has these properties."""
    items = [coded_picture(size=size, properties=properties)]
    if exif is not None:
        items.append(Item(kind=b"Exif", data=bytes(4) + exif, describes=1))
    return container(items, brands=brands)


def grid(columns: int, rows: int, *, size: tuple[int, int] | None = None, properties: Sequence[bytes] = ()) -> bytes:
    """Return a picture in tiles, as phones write it: the kept picture in each of them."""
    width, height = size or (columns * WIDTH, rows * HEIGHT)
    shape = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)
    tiles = [coded_picture()] * (columns * rows)
    numbers = range(2, len(tiles) + 2)
    return container(
        [Item(kind=b"grid", data=shape, properties=(ispe(width, height), *properties), tiles=numbers), *tiles]
    )


def coded_picture(*, size: tuple[int, int] = (WIDTH, HEIGHT), properties: Sequence[bytes] = ()) -> Item:
    """Return the kept picture as an item."""
    return Item(kind=b"hvc1", data=_coded(), properties=(_configuration(), ispe(*size), *properties))


def ispe(width: int, height: int) -> bytes:
    """Return the property that tells a size."""
    return full_box(b"ispe", struct.pack(">II", width, height))


def irot(quarters: int) -> bytes:
    """Return the property that turns a picture by quarters, against the clock."""
    return box(b"irot", bytes([quarters]))


def imir(axis: int) -> bytes:
    """Return the property that mirrors: 0 exchanges top and bottom, 1 left and right."""
    return box(b"imir", bytes([axis]))


def box(kind: bytes, data: bytes) -> bytes:
    """Return a box."""
    return struct.pack(">I", 8 + len(data)) + kind + data


def full_box(kind: bytes, data: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    """Return a box with a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags) + data)


def container(items: Sequence[Item], *, brands: Sequence[bytes] = (b"heic", b"mif1", b"heic")) -> bytes:
    """Return a file of these items, the first of them primary; items with the same data share it."""
    ftyp = box(b"ftyp", brands[0] + bytes(4) + b"".join(brands[1:]))
    # The places of the data depend on the length of what tells them, which does not depend on the places.
    start = len(ftyp) + len(_meta(items, 0)) + 8
    return ftyp + _meta(items, start) + box(b"mdat", b"".join(dict.fromkeys(item.data for item in items)))


def _meta(items: Sequence[Item], start: int) -> bytes:
    handler = full_box(b"hdlr", bytes(4) + b"pict" + bytes(13))
    primary = full_box(b"pitm", struct.pack(">H", 1))
    about = _kinds(items) + _references(items) + _locations(items, start) + _properties(items)
    return full_box(b"meta", handler + primary + about)


def _kinds(items: Sequence[Item]) -> bytes:
    kinds = [struct.pack(">HH4s", number, 0, item.kind) + item.rest for number, item in _numbered(items)]
    entries = b"".join(full_box(b"infe", kind, version=2) for kind in kinds)
    return full_box(b"iinf", struct.pack(">H", len(items)) + entries)


def _numbered(items: Sequence[Item]) -> Sequence[tuple[int, Item]]:
    return list(enumerate(items, start=1))


def _references(items: Sequence[Item]) -> bytes:
    references = b""
    for number, item in _numbered(items):
        if item.tiles:
            references += box(b"dimg", struct.pack(f">HH{len(item.tiles)}H", number, len(item.tiles), *item.tiles))
        if item.describes is not None:
            references += box(b"cdsc", struct.pack(">HHH", number, 1, item.describes))
    return full_box(b"iref", references) if references else b""


def _locations(items: Sequence[Item], start: int) -> bytes:
    places, starts = b"", dict[bytes, int]()
    for number, item in _numbered(items):
        if item.data not in starts:
            starts[item.data] = start
            start += len(item.data)
        places += struct.pack(">HHHII", number, 0, 1, starts[item.data], len(item.data))
    return full_box(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)) + places)


def _properties(items: Sequence[Item]) -> bytes:
    known: list[bytes] = []
    associations = b""
    for number, item in _numbered(items):
        known += [one for one in item.properties if one not in known]
        places = bytes(known.index(one) + 1 for one in item.properties)
        associations += struct.pack(">HB", number, len(places)) + places
    count = struct.pack(">I", len(items))
    return box(b"iprp", box(b"ipco", b"".join(known)) + full_box(b"ipma", count + associations))


def _configuration() -> bytes:
    """Return the property that sets the decoder of the kept picture up."""
    start = CORNERS.index(b"hvcC") - 4
    return CORNERS[start : start + int.from_bytes(CORNERS[start : start + 4], "big")]


def _coded() -> bytes:
    """Return the kept picture without its container."""
    return CORNERS[CORNERS.index(b"mdat") + 4 :]
