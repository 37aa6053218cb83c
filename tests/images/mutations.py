"""Mutations: what is done to a good file to make a hostile one, as values that say how to do it again."""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

LARGEST_BYTES = 300_000
"""Mutated files are cut off here, so that those which grow do not take up all the time."""

_TELLING = (0, 1, 2, 0x7F, 0xFF, 0x4000, 0x7FFF, 0xFFFF, 20_000, 65_500, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Numbers at which sizes, counts and offsets go wrong."""
_HOLDERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4, b"iinf": 6, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0}
"""The boxes that hold boxes, and how many bytes stand before the first of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Some bits of a byte change."""

    place: int
    bits: int

    def apply(self, data: bytearray) -> None:
        """Change the data."""
        data[self.place % len(data)] ^= self.bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number takes the place of others, from `offset` into a part of the file."""

    part: int
    offset: int
    number: int
    width: int
    little: bool

    def apply(self, data: bytearray) -> None:
        """Change the data."""
        start = _part(data, self.part)[0] + self.offset
        written = (self.number % 256**self.width).to_bytes(self.width, "little" if self.little else "big")
        data[start : start + self.width] = written


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The file ends early."""

    place: int

    def apply(self, data: bytearray) -> None:
        """Change the data."""
        del data[max(1, self.place % len(data)) :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Some bytes are missing."""

    place: int
    count: int

    def apply(self, data: bytearray) -> None:
        """Change the data."""
        start = max(1, self.place % len(data))
        del data[start : start + self.count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Some bytes come again and again."""

    place: int
    count: int
    times: int

    def apply(self, data: bytearray) -> None:
        """Change the data."""
        start = self.place % len(data)
        data[start:start] = _repeated(data[start : start + self.count], self.times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert:
    """Other bytes come in between, or behind the end."""

    place: int | None
    garbage: bytes

    def apply(self, data: bytearray) -> None:
        """Change the data."""
        start = len(data) if self.place is None else self.place % len(data)
        data[start:start] = self.garbage


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """From a place on, the file goes on as another one does."""

    place: int
    other: bytes
    other_place: int

    def apply(self, data: bytearray) -> None:
        """Change the data."""
        data[max(1, self.place % len(data)) :] = self.other[self.other_place % len(self.other) :]

    def __repr__(self) -> str:
        """Return what it does, without the other file's bytes."""
        return f"Splice(place={self.place}, other=<{len(self.other)} bytes>, other_place={self.other_place})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A part of the file (a chunk, segment, block or box) is dropped, or comes `times` times, at another's place."""

    part: int
    place: int
    times: int

    def apply(self, data: bytearray) -> None:
        """Change the data."""
        start, end = _part(data, self.part)
        moved = _repeated(data[start:end], self.times)
        if not self.times and end - start < len(data):
            del data[start:end]
        else:
            at = _part(data, self.place)[0]
            data[at:at] = moved


Mutation: TypeAlias = Flip | Number | Cut | Remove | Repeat | Insert | Splice | Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutated:
    """A good file by its name, and what is done to it; `repaired` gives a PNG its checksums back."""

    name: str
    mutations: Sequence[Mutation]
    repaired: bool

    def data(self, whole: bytes) -> bytes:
        """Return what becomes of the good file."""
        data = bytearray(whole)
        for mutation in self.mutations:
            mutation.apply(data)
            del data[LARGEST_BYTES:]
        return _with_checksums(bytes(data)) if self.repaired else bytes(data)


def mutated(files: dict[str, bytes], others: Sequence[bytes]) -> SearchStrategy[Mutated]:
    """Return a strategy for mutations of these files; spliced in are parts of them and of `others`."""
    mutations = st.lists(_mutation([*files.values(), *others]), min_size=1, max_size=4)
    return st.builds(Mutated, name=st.sampled_from(sorted(files)), mutations=mutations, repaired=st.booleans())


def _mutation(files: Sequence[bytes]) -> SearchStrategy[Mutation]:
    place = st.integers(12, 200) | st.integers(12, 200) | st.integers(0, 1 << 20)
    part = st.integers(0, 40)
    number = st.sampled_from(_TELLING) | st.integers(0, 0xFFFFFFFF)
    times = st.integers(0, 3) | st.sampled_from((40, 2_000))
    width = st.sampled_from((1, 2, 4))
    garbage = st.binary(max_size=64) | st.sampled_from((bytes(5_000), b"\xff" * 5_000))
    return st.one_of(
        st.builds(Flip, place=place, bits=st.integers(1, 255)),
        st.builds(Number, part=part, offset=st.integers(0, 40), number=number, width=width, little=st.booleans()),
        st.builds(Cut, place=place),
        st.builds(Remove, place=place, count=st.integers(1, 64)),
        st.builds(Repeat, place=place, count=st.integers(1, 64), times=times),
        st.builds(Insert, place=st.none() | place, garbage=garbage),
        st.builds(Splice, place=place, other=st.sampled_from(files), other_place=place),
        st.builds(Parts, part=part, place=part, times=times),
    )


def _repeated(data: bytearray, times: int) -> bytes:
    return bytes(data * min(times, LARGEST_BYTES // max(1, len(data)) + 1))


def _part(data: bytearray, number: int) -> tuple[int, int]:
    """Return where a part of the file begins and ends; without parts it is the whole."""
    parts = list(_parts(bytes(data[:100_000])))
    return parts[number % len(parts)] if parts else (0, len(data))


def _parts(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield what the file is made of, each part with its head."""
    if data[:3] == b"\xff\xd8\xff":
        yield from _ends(data, (found.start() for found in re.finditer(rb"\xff[\xc0-\xfe]", data)))
    elif data[:4] == b"\x89PNG":
        yield from _chunks(data, 8, ">I", 12)
    elif data[:4] == b"RIFF":
        yield from _chunks(data, 12, "<4xI", 8)
    elif data[:3] == b"GIF":
        yield from _ends(data, (found.start() for found in re.finditer(rb"[!,]", data)))
    elif data[4:8] == b"ftyp":
        yield from _boxes(data, 0, len(data))


def _ends(data: bytes, starts: Iterator[int]) -> Iterator[tuple[int, int]]:
    yield from pairwise([*starts, len(data)])


def _chunks(data: bytes, start: int, head: str, overhead: int) -> Iterator[tuple[int, int]]:
    while start + overhead <= len(data):
        (length,) = struct.unpack_from(head, data, start)
        end = min(start + length + overhead, len(data))
        yield start, end
        start = end


def _boxes(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    while start + 8 <= stop:
        length, kind = struct.unpack_from(">I4s", data, start)
        end = min(start + max(length, 8), stop)
        yield start, end
        if kind in _HOLDERS:
            yield from _boxes(data, start + 8 + _HOLDERS[kind], end)
        start = end


def _with_checksums(data: bytes) -> bytes:
    """Return a PNG in which the checksums are right, so that what is wrong beside them is looked at."""
    if data[:4] != b"\x89PNG":
        return data
    repaired = bytearray(data)
    for start, end in _chunks(data, 8, ">I", 12):
        if end - start >= 12:
            repaired[end - 4 : end] = struct.pack(">I", zlib.crc32(data[start + 4 : end - 4]))
    return bytes(repaired)
