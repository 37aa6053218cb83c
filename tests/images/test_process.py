"""The image process: what happens to images, and to those who wait for them, when it dies, hangs or is slow."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from mondrian_server.child import Child
from mondrian_server.errors import InternalError, InvalidImage, ShuttingDown, StartupError
from mondrian_server.images.decoder import COMMAND, ImageDecoder
from mondrian_server.images.protocol import MEBIBYTE, ImageLimits
from mondrian_server.pictures import Picture
from tests.conditions import eventually
from tests.images.deadly_process import DEADLY
from tests.images.files import corners, encoded, png

GOOD = encoded(corners())


@pytest_asyncio.fixture
async def decoder() -> AsyncGenerator[ImageDecoder]:
    """A decoder of the test's own."""
    async with ImageDecoder(ImageLimits()) as running:
        yield running


def deadly(starts: Path, most: int = 1000) -> tuple[str, ...]:
    """Return the command of a process that dies of some images, and does not start more often than `most` times."""
    return (sys.executable, "-m", "tests.images.deadly_process", str(starts), str(most))


def stop(decoder: ImageDecoder) -> int:
    """Halt the process, so that what is sent to it waits, and return its id."""
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGSTOP)
    return decoder.pid


def normalising(decoder: ImageDecoder, data: bytes = GOOD) -> "asyncio.Task[Picture]":
    """Have an image normalised beside the test."""
    return asyncio.create_task(decoder.normalise(data, field="image"))


def replaced(decoder: ImageDecoder, pid: int) -> Callable[[], bool]:
    """Return the condition that another process is ready."""
    return lambda: decoder.pid not in (None, pid)


async def test_it_names_itself(decoder: ImageDecoder) -> None:
    """The process is called `mondrian: images` in `ps`."""
    assert psutil.Process(decoder.pid).cmdline()[0] == "mondrian: images"


async def test_images_are_taken_in_order(decoder: ImageDecoder) -> None:
    """First come, first served, also where the first one is the largest."""
    done: list[int] = []

    async def normalise(number: int, data: bytes) -> None:
        await decoder.normalise(data, field="image")
        done.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(normalise(number, png(4000, 4000) if number % 4 == 0 else GOOD))
    assert done == list(range(12))
    assert decoder.waiting == 0


async def test_a_decode_that_takes_too_long_is_refused() -> None:
    """An image that outlasts its limit is refused; the next one meets a new process."""
    async with ImageDecoder(ImageLimits(decode_limit_s=1.0)) as decoder:
        pid = stop(decoder)
        slow, behind = normalising(decoder), normalising(decoder)
        with pytest.raises(InvalidImage, match=r"took longer than the 1 s allowed"):
            await slow
        assert (await behind).width == 40
        assert decoder.pid != pid
        assert not psutil.pid_exists(pid)


async def test_a_process_killed_from_outside_costs_nobody_an_image(decoder: ImageDecoder) -> None:
    """After `kill -9` the image in hand and all behind it are given to the next process."""
    pid = stop(decoder)
    waiting = [normalising(decoder) for _ in range(5)]
    await eventually(lambda: decoder.waiting == 5, within_s=10.0)
    os.kill(pid, signal.SIGKILL)
    assert all(picture.width == 40 for picture in await asyncio.gather(*waiting))
    assert decoder.pid != pid


async def test_an_idle_process_is_replaced(decoder: ImageDecoder) -> None:
    """A process that dies while nobody waits is replaced at once, not at the next image."""
    pid = stop(decoder)
    os.kill(pid, signal.SIGKILL)
    await eventually(replaced(decoder, pid), within_s=10.0)
    assert (await decoder.normalise(GOOD, field="image")).width == 40


async def test_a_deadly_image_costs_only_itself(tmp_path: Path) -> None:
    """An image of which the process dies is refused after a second try; those before and behind it come out."""
    starts = tmp_path / "starts"
    async with ImageDecoder(ImageLimits(), command=deadly(starts)) as decoder:
        first, killer, *others = (normalising(decoder, data) for data in (GOOD, DEADLY, GOOD, GOOD, GOOD))
        with pytest.raises(InvalidImage, match="it ends the decoder, or needs more memory than the 1,536 MiB allowed"):
            await killer
        assert all(picture.width == 40 for picture in await asyncio.gather(first, *others))
        assert starts.stat().st_size == 3


async def test_a_process_that_never_starts_ends_the_start(tmp_path: Path) -> None:
    """A service whose images cannot be decoded does not start."""
    with pytest.raises(StartupError, match="the image process does not start"):
        await ImageDecoder(ImageLimits(), command=deadly(tmp_path / "starts", 0)).start()
    with pytest.raises(StartupError, match="the image process does not start"):
        await ImageDecoder(ImageLimits(), command=(str(tmp_path / "nothing"),)).start()


async def test_a_process_that_no_longer_starts_is_told(tmp_path: Path) -> None:
    """Where no new process comes up, those who wait are told, and are not blamed."""
    async with ImageDecoder(ImageLimits(), command=deadly(tmp_path / "starts", 1)) as decoder:
        with pytest.raises(InternalError, match="the image process does not start"):
            await decoder.normalise(DEADLY, field="image")


async def test_a_silent_process_counts_as_not_started(tmp_path: Path) -> None:
    """A process that says nothing within the start limit is ended."""
    silent = (sys.executable, "-c", "import time; time.sleep(600)")
    with pytest.raises(StartupError):
        await ImageDecoder(ImageLimits(start_limit_s=0.2), command=silent).start()
    assert not [child for child in psutil.Process().children() if "time.sleep(600)" in child.cmdline()]


async def test_cancelled_images_leave_nothing_behind(decoder: ImageDecoder) -> None:
    """Those who no longer wait are gone from the queue at once, the one in hand too; the next image is served."""
    pid = stop(decoder)
    waiting = [normalising(decoder, bytes(MEBIBYTE)) for _ in range(3)]
    await eventually(lambda: decoder.waiting == 3, within_s=10.0)
    for task in waiting:
        task.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert decoder.waiting == 0
    os.kill(pid, signal.SIGCONT)
    assert (await decoder.normalise(GOOD, field="image")).width == 40
    assert decoder.pid == pid


async def test_closing_tells_those_who_wait(decoder: ImageDecoder) -> None:
    """At the end of the service nobody waits for ever, and the process is gone."""
    pid = stop(decoder)
    waiting = [normalising(decoder) for _ in range(3)]
    await eventually(lambda: decoder.waiting == 3, within_s=10.0)
    await decoder.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, ShuttingDown) for outcome in outcomes)
    assert not psutil.pid_exists(pid)
    with pytest.raises(ShuttingDown):
        await decoder.normalise(GOOD, field="image")


async def test_replaced_processes_leave_nothing_behind(decoder: ImageDecoder) -> None:
    """After several deaths there is one process, and no descriptor more than before."""
    gc.collect()  # What earlier tests left is not counted, and what they still close is no matter.
    server = psutil.Process()
    descriptors = server.num_fds()
    others = {child.pid for child in server.children()} - {decoder.pid}
    for _ in range(3):
        pid = stop(decoder)
        os.kill(pid, signal.SIGKILL)
        await eventually(replaced(decoder, pid), within_s=10.0)
    await eventually(lambda: {child.pid for child in server.children()} - others == {decoder.pid}, within_s=10.0)
    await eventually(lambda: server.num_fds() <= descriptors, within_s=10.0)


async def test_it_ends_with_the_server() -> None:
    """A process whose server is gone ends by itself."""
    async with await Child.start(COMMAND) as child:
        child.end.close()
        async with asyncio.timeout(10):
            assert await child.wait() == 0
