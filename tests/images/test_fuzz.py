"""Mutated pictures: whatever is sent, the answer is a picture or a refusal, within the bounds, and nothing is left."""

import asyncio
import collections
import gc
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings

from mondrian_server.errors import InvalidImage
from mondrian_server.images.decoder import MAX_ATTEMPTS, ImageDecoder
from mondrian_server.images.formats import ACCEPTED
from mondrian_server.images.protocol import MEBIBYTE, ImageLimits
from mondrian_server.pictures import Picture
from tests.images.files import corners, encoded
from tests.images.good_files import good_files
from tests.images.mutations import Mutated, mutated

KINDS = [format_.name for format_ in ACCEPTED]
ROUND = 250
"""Mutated files of one seed. Every run of the tests sends two rounds of each format."""
MANY = 40
"""Rounds in `make soak`: 10,000 files of each format."""
SAMPLED = 40
"""Of so many files one is kept, to be sent again and again for leaks."""
SLACK_BYTES = 16 * MEBIBYTE
"""How much resident memory may grow while the sample is sent again, as often as there were rounds."""
LIMITS = ImageLimits()


@dataclass(slots=True)
class Hunt:
    """Files sent to a decoder, and what they have cost it."""

    decoder: ImageDecoder
    files: dict[str, bytes]
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter[str])
    deadly: list[Mutated] = field(default_factory=list[Mutated])
    sample: list[Mutated] = field(default_factory=list[Mutated])
    slowest_s: float = 0.0
    slowest: Mutated | None = None
    most_bytes: int = 0
    _pid: int | None = None

    async def send(self, file: Mutated) -> None:
        """Send a file; fails unless a picture or a refusal comes back in time, at no greater cost than allowed."""
        data = file.data(self.files[file.name])
        began = time.monotonic()
        try:
            outcome = _checked(await self.decoder.normalise(data, field="images[0].data"))
        except InvalidImage as refusal:
            outcome = _checked_refusal(refusal)
        if self.outcomes.total() % SAMPLED == 0:
            self.sample.append(file)
        self.outcomes[outcome] += 1
        took_s = time.monotonic() - began
        if took_s > self.slowest_s:
            self.slowest_s, self.slowest = took_s, file
        # Two processes may be started and ended for one image; each has its time.
        assert self.slowest_s <= MAX_ATTEMPTS * (LIMITS.decode_limit_s + LIMITS.start_limit_s)
        self._look_at_the_process(file)

    async def send_all(self, files: Sequence[Mutated]) -> None:
        """Send files, one after the other."""
        for file in files:
            await self.send(file)

    def _look_at_the_process(self, file: Mutated) -> None:
        pid = self.decoder.pid
        if self._pid is not None and pid != self._pid:
            self.deadly.append(file)
        self._pid = pid
        if pid is not None and (status := Path(f"/proc/{pid}/status")).exists():
            peaks = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
            self.most_bytes = max(self.most_bytes, int(peaks["VmPeak"].split()[0]) * 1024)
            assert self.most_bytes <= LIMITS.memory_limit_bytes

    def __str__(self) -> str:
        """Return the numbers in one line."""
        outcomes = ", ".join(f"{count} × {outcome}" for outcome, count in self.outcomes.most_common())
        peak = f"{self.most_bytes / MEBIBYTE:,.0f} MiB of address space"
        times = f"slowest {self.slowest_s:.2f} s, {self.slowest}"
        return f"{outcomes}; {times}; {peak}; processes replaced after {self.deadly}"


def _checked(picture: Picture) -> str:
    assert 0 < picture.width * picture.height <= LIMITS.max_normalised_pixels
    assert len(picture.pixels) == 3 * picture.width * picture.height
    return "picture"


def _checked_refusal(refusal: InvalidImage) -> str:
    assert refusal.field == "images[0].data"
    assert refusal.message.isprintable() and len(refusal.message) < 200
    return re.sub(r"[\d,.]+", "#", refusal.message)[:45]


async def hunt(hunted: Hunt, kind: str, number: int) -> None:
    """Send a round of mutated files of a format; the failing one is told by its mutations, as few as can be."""
    loop = asyncio.get_running_loop()
    others = [file for other in KINDS for file in good_files(other).values() if other != kind]

    # Nothing is kept beside the tests: the number of the round gives the same files again.
    @seed(number)
    @settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(mutated(hunted.files, others))
    def send(file: Mutated) -> None:
        note(f"round {number} of {kind}")
        asyncio.run_coroutine_threadsafe(hunted.send(file), loop).result()

    await asyncio.to_thread(send)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What is held at one moment: files and children by the server's side, resident memory by both."""

    descriptors: int
    children: int
    server_bytes: int
    images_bytes: int

    @classmethod
    def of(cls, decoder: ImageDecoder) -> Self:
        """Look at both processes."""
        assert decoder.pid is not None
        gc.collect()
        server = psutil.Process()
        return cls(
            descriptors=server.num_fds(),
            children=len(server.children()),
            server_bytes=server.memory_info().rss,
            images_bytes=psutil.Process(decoder.pid).memory_info().rss,
        )

    def __str__(self) -> str:
        """Return the numbers in one line."""
        server, images = self.server_bytes // MEBIBYTE, self.images_bytes // MEBIBYTE
        return f"{self.descriptors} descriptors, {self.children} children, {server} and {images} MiB"


async def hunt_without_leaks(kind: str, rounds: int) -> None:
    """Hunt with a decoder of its own, and fail where anything is left behind."""
    async with ImageDecoder(LIMITS) as decoder:
        hunted = Hunt(decoder, good_files(kind))
        for number in range(rounds):
            await hunt(hunted, kind, number)
        assert len(hunted.deadly) <= hunted.outcomes.total() // 100
        # Without hypothesis, which remembers what it has tried, and with files that were seen before.
        sample, again = tuple(hunted.sample), Hunt(decoder, hunted.files)
        await again.send_all(sample)
        before = Holding.of(decoder)
        for _ in range(max(4, rounds // 2)):
            await again.send_all(sample)
        assert decoder.waiting == 0
        assert (await decoder.normalise(encoded(corners()), field="image")).width == 40
        after = Holding.of(decoder)
    print(f"{kind}: {hunted}; {again.outcomes.total()} again: {before} → {after}")  # noqa: T201 - shown with -s
    assert (after.descriptors, after.children) == (before.descriptors, before.children)
    assert after.server_bytes - before.server_bytes <= SLACK_BYTES
    assert after.images_bytes - before.images_bytes <= SLACK_BYTES or again.deadly


@pytest.mark.parametrize("kind", KINDS)
async def test_mutated_pictures_do_no_harm(kind: str) -> None:
    """Files with bytes, numbers and parts changed, moved, repeated and lost end in pictures or refusals."""
    await hunt_without_leaks(kind, 2)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
async def test_ten_thousand_mutated_pictures_do_no_harm(kind: str) -> None:
    """The same, for long."""
    await hunt_without_leaks(kind, MANY)
