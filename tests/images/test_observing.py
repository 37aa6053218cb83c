"""Observing: whoever counts hears what becomes of each image, and of each image process."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from mondrian_server.errors import InvalidImage
from mondrian_server.images.decoder import ImageDecoder
from mondrian_server.images.observing import DecodingObserver, Refusal
from mondrian_server.images.protocol import ImageLimits
from tests.images.deadly_process import DEADLY
from tests.images.files import corners, encoded


class Recorder(DecodingObserver):
    """Writes down what it hears."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.decoded = 0
        self.refused: list[Refusal] = []
        self.ended = asyncio.Semaphore(0)

    def image_decoded(self, took_s: float) -> None:
        """Count it."""
        assert took_s > 0
        self.decoded += 1

    def image_refused(self, why: Refusal) -> None:
        """Write it down."""
        self.refused.append(why)

    def image_process_ended(self) -> None:
        """Count it."""
        self.ended.release()


async def test_each_image_and_each_lost_process_is_told_once(tmp_path: Path) -> None:
    """A good image, one that is none, one too large, and one that ends the process twice, in its order."""
    recorder = Recorder()
    command = (sys.executable, "-m", "tests.images.deadly_process", str(tmp_path / "starts"), "10")
    good = encoded(corners())
    limits = ImageLimits(max_image_bytes=len(good) + 10)
    async with ImageDecoder(limits, command=command, observer=recorder) as decoder:
        await decoder.normalise(good, field="image")
        for bad in (b"no picture", bytes(len(good) + 11), DEADLY):
            with pytest.raises(InvalidImage):
                await decoder.normalise(bad, field="image")
        for _ in range(2):
            await asyncio.wait_for(recorder.ended.acquire(), 10)
    assert recorder.decoded == 1
    assert recorder.refused == [Refusal.NOT_ACCEPTED, Refusal.TOO_MANY_BYTES, Refusal.DEADLY]
    assert recorder.ended.locked(), "no process ended but those two"


async def test_an_image_that_takes_too_long_is_told_as_such() -> None:
    """An image that a halted process does not answer in time is refused for slowness."""
    recorder = Recorder()
    async with ImageDecoder(ImageLimits(decode_limit_s=0.2), observer=recorder) as decoder:
        assert decoder.pid is not None
        os.kill(decoder.pid, signal.SIGSTOP)
        with pytest.raises(InvalidImage):
            await decoder.normalise(encoded(corners()), field="image")
    assert (recorder.decoded, recorder.refused) == (0, [Refusal.TOO_SLOW])
