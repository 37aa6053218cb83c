"""Cancelling: seen at once in every stage, and the slot is free when the running operation ends."""

import asyncio
import io
import os
import random
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import psutil
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from PIL import Image

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian.v1 import analysis_service_pb2_grpc as service_grpc
from tests.conditions import eventually
from tests.service.calls import Running, settings_for, started

NOTHING = (0, 0, 0, 0)
LONG = pb.Sampling(max_tokens=1500, min_tokens=1500)


@pytest_asyncio.fixture(scope="module")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A service with one slot and no look-ahead, so that the second analysis waits."""
    settings = settings_for(
        tmp_path_factory.mktemp("data"), slots=1, lookahead=0, prefill_step_tokens=16, max_normalised_pixels=1_000_000
    )
    async with started(settings) as running:
        yield running


def long_text(**changes: object) -> pb.AnalysisConfig:
    """Return a text-only analysis that goes on for seconds."""
    return pb.AnalysisConfig(prompt="Describe a picture in detail.", sampling=LONG, **changes)  # pyright: ignore[reportArgumentType]  # fields by name


def big_png() -> bytes:
    """Return a picture of 49 megapixels, which takes a good while to decode."""
    buffer = io.BytesIO()
    Image.new("RGB", (7000, 7000), (200, 40, 30)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


async def nothing_is_left(up: Running) -> None:
    """Wait until neither the server nor the engine holds anything."""
    await eventually(lambda: up.held == NOTHING)
    await eventually(lambda: up.service.engine.status.slots_in_use == 0)
    await eventually(lambda: up.service.engine.beat.rows_held == 0)


@pytest.mark.alone
async def test_cancel_while_queued_takes_it_out_of_the_queue(small: Running) -> None:
    """A waiting analysis that is cancelled leaves the queue at once; the running one goes on."""
    first = small.call(long_text())
    await first.until_token()
    second = small.call(long_text())
    await second.until_stage(pb.STAGE_QUEUED)
    assert small.service.scheduler.waiting == 1
    second.cancel()
    await eventually(lambda: small.service.scheduler.waiting == 0, within_s=1.0)
    assert small.service.analyses.live == 1
    first.cancel()
    await nothing_is_left(small)


@pytest.mark.alone
async def test_cancel_while_the_image_decodes_frees_the_place(small: Running) -> None:
    """An analysis cancelled while its image is being decoded holds nothing, and the next one runs."""
    call = small.call(pb.AnalysisConfig(prompt="What is this?", images=[pb.Image(data=big_png())]))
    await call.until_stage(pb.STAGE_PREPARING)
    call.cancel()
    await eventually(lambda: small.held == NOTHING, within_s=1.0)
    outcome = await small.ask(pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3)))
    assert outcome.code is grpc.StatusCode.OK
    await nothing_is_left(small)


async def test_cancel_in_prefill_frees_the_slot_after_the_running_chunk(small: Running) -> None:
    """An analysis cancelled in prefill never generates, and leaves its slot without reading the rest of the prompt."""
    often = pb.Delivery(progress_interval=Duration(nanos=100_000_000))
    call = small.call(pb.AnalysisConfig(prompt="all the colours " * 500, sampling=LONG, delivery=often))
    await call.until(lambda event: 0 < event.progress.prompt_tokens_done < event.progress.prompt_tokens_total)
    call.cancel()
    outcome = await call.outcome()
    assert outcome.text == ""
    await nothing_is_left(small)


async def test_cancel_while_generating_frees_the_slot(small: Running) -> None:
    """An analysis cancelled while it generates leaves its slot to the next one."""
    call = small.call(long_text())
    await call.until_token()
    waiting = small.call(pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3)))
    await waiting.until_stage(pb.STAGE_QUEUED)
    call.cancel()
    assert (await waiting.outcome()).code is grpc.StatusCode.OK
    await nothing_is_left(small)


@pytest.mark.alone
async def test_cancel_is_seen_at_once_while_the_engine_is_stopped(small: Running) -> None:
    """With the engine stopped, a cancelled analysis ends at once; its row is free when the engine moves again."""
    call = small.call(long_text())
    await call.until_token()
    pid = small.service.engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        call.cancel()
        await eventually(lambda: small.service.analyses.live == 0, within_s=0.5)
        assert small.service.scheduler.rows_held == 1, "the engine has not closed the row yet"
    finally:
        os.kill(pid, signal.SIGCONT)
    await nothing_is_left(small)
    assert small.service.engine.pid == pid


async def test_a_thousand_vanishing_clients_leave_nothing_behind(up: Running, picture: bytes) -> None:
    """Clients that cancel, or whose connection drops, at random moments leave no row, task, entry or descriptor."""
    await up.ask(pb.AnalysisConfig(prompt="warm", images=[pb.Image(data=picture)], sampling=pb.Sampling(max_tokens=2)))
    await nothing_is_left(up)
    process = psutil.Process()
    tasks, descriptors = len(asyncio.all_tasks()), process.num_fds()
    chance = random.Random(7)  # moments, not secrets
    for _ in range(20):
        await asyncio.gather(*(_vanish(up, picture, chance) for _ in range(50)))
    await nothing_is_left(up)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    await eventually(lambda: process.num_fds() <= descriptors + 4)
    outcome = await up.ask(pb.AnalysisConfig(prompt="Still there?", sampling=pb.Sampling(max_tokens=3)))
    assert outcome.code is grpc.StatusCode.OK


async def _vanish(up: Running, picture: bytes, chance: random.Random) -> None:
    """Start an analysis and lose interest a moment later, by a cancel or by dropping the connection."""
    images = [pb.Image(data=picture)] if chance.random() < 0.3 else []
    request = service_pb.AnalyzeRequest(
        config=pb.AnalysisConfig(prompt="Tell me more.", images=images, sampling=pb.Sampling(max_tokens=200))
    )
    moment_s = chance.random() ** 2 * 0.5
    if chance.random() < 0.1:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{up.service.port}") as channel:
            call = service_grpc.AnalysisServiceStub(channel).Analyze(request)
            await _read_for(call, moment_s)
    else:
        call = up.analyses.Analyze(request)
        await _read_for(call, moment_s)
        call.cancel()


async def _read_for(
    call: "grpc.aio.UnaryStreamCall[service_pb.AnalyzeRequest, service_pb.AnalyzeResponse]", moment_s: float
) -> None:
    try:
        async with asyncio.timeout(moment_s):
            async for _ in call:
                pass
    except TimeoutError:
        pass


def test_the_big_picture_is_within_the_limits(tmp_path: Path) -> None:
    """The picture of the decoding test is one that the server accepts: it is slow, not bad."""
    assert len(big_png()) < settings_for(tmp_path).max_image_bytes
