"""Limits: what is just within them is answered, and a full queue refuses at once."""

import asyncio
import math
from collections.abc import AsyncGenerator

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from mondrian.v1 import analysis_pb2 as pb
from tests.conditions import eventually
from tests.service.calls import Call, Running, settings_for, started
from tests.service.files import png

MEBIBYTE = 1024 * 1024
NOTHING = (0, 0, 0, 0)
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

WITHIN = {
    "temperature 2": pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(temperature=2.0)),
    "top-p 1 and min-p 1": pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(top_p=1.0, min_p=1.0)),
    "repetition penalty 2": pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(repetition_penalty=2.0)),
    "a huge top-k": pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(top_k=1 << 24, seed=2**32 - 1)),
    "eight long stop strings": pb.AnalysisConfig(
        prompt="Hello", sampling=pb.Sampling(stop=[character * 256 for character in "abcdefgé"])
    ),
    "the shortest progress interval": pb.AnalysisConfig(
        prompt="Hello", delivery=pb.Delivery(progress_interval=Duration(nanos=100_000_000))
    ),
    "the longest intervals": pb.AnalysisConfig(
        prompt="Hello",
        delivery=pb.Delivery(token_interval=Duration(seconds=60), progress_interval=Duration(seconds=60)),
        time_limit=Duration(seconds=315_576_000_000),
    ),
    "a prompt of one control character": pb.AnalysisConfig(prompt="\0"),
}


@pytest.mark.parametrize("config", WITHIN.values(), ids=WITHIN.keys())
async def test_what_is_just_within_the_limits_is_answered(up: Running, config: pb.AnalysisConfig) -> None:
    """The ends of each range belong to it."""
    request = pb.AnalysisConfig()
    request.CopyFrom(config)
    request.sampling.max_tokens = 2
    outcome = await up.ask(request)
    assert outcome.code is grpc.StatusCode.OK, outcome.message


async def test_the_smallest_numbers_keep_every_number_finite(up: Running) -> None:
    """Values beside 0 neither give a log-probability that is none nor change the text of a neighbour."""
    plain = pb.Sampling(temperature=1.0, seed=5, min_tokens=20, max_tokens=20)
    detail = pb.TokenDetail(log_probabilities=True)
    alone = await up.ask(pb.AnalysisConfig(prompt="Hello", sampling=plain))
    least = 1e-45  # The smallest number that a float field can hold.
    extremes = [
        pb.Sampling(repetition_penalty=least),
        pb.Sampling(temperature=least),
        pb.Sampling(temperature=1.0, top_p=least),
        pb.Sampling(temperature=1.0, min_p=least),
        plain,
    ]
    for sampling in extremes:
        sampling.min_tokens = sampling.max_tokens = 20
    requests = [pb.AnalysisConfig(prompt="Hello", sampling=sampling, token_detail=detail) for sampling in extremes]
    outcomes = await asyncio.gather(*map(up.ask, requests))
    for outcome in outcomes:
        assert len(outcome.log_probabilities) == 20
        assert all(math.isfinite(value) for value in outcome.log_probabilities)
    assert outcomes[-1].text == alone.text


async def test_images_just_within_the_limits_are_answered(up: Running) -> None:
    """20 MiB in one image, 24 MiB in all, eight images and 50 megapixels are accepted."""
    for images in (
        [png(8, 8, size_bytes=20 * MEBIBYTE), png(8, 8, size_bytes=4 * MEBIBYTE)],
        [png(16, 16)] * 8,
        [png(10_000, 5_000)],
    ):
        config = pb.AnalysisConfig(images=[pb.Image(data=data) for data in images])
        config.sampling.max_tokens = 1
        outcome = await up.ask(config)
        assert outcome.code is grpc.StatusCode.OK, outcome.message
        assert outcome.completed.usage.image_tokens > 0


async def test_the_context_is_filled_to_its_last_token(up: Running) -> None:
    """As many tokens as fit beside the prompt may be asked for, and not one more."""
    config = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=1))
    first = await up.ask(config)
    room = first.accepted.context_tokens - first.completed.usage.prompt_tokens
    config.sampling.max_tokens = room
    fits = up.call(config)
    await fits.until_token()
    fits.cancel()
    config.sampling.max_tokens = room + 1
    assert (await up.ask(config)).reason == "CONTEXT_EXCEEDED"


async def test_what_is_refused_never_reads_like_the_limit(up: Running) -> None:
    """One byte too many is not told as "20.0 MiB; at most 20.0 MiB are accepted"."""
    outcome = await up.ask(pb.AnalysisConfig(images=[pb.Image(data=bytes(20 * MEBIBYTE + 1))]))
    assert "the image has 20.1 MiB; at most 20.0 MiB are accepted" in outcome.message


@pytest_asyncio.fixture(scope="module")
async def narrow(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A service with one slot, where two analyses and little more than 1 MiB of images may wait."""
    settings = settings_for(
        tmp_path_factory.mktemp("data"),
        slots=1,
        lookahead=0,
        max_waiting_analyses=2,
        max_waiting_bytes=MEBIBYTE + 20,
    )
    async with started(settings) as running:
        yield running


LONG = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3_000, min_tokens=3_000))
GARBAGE = pb.AnalysisConfig(images=[pb.Image(data=b"these bytes are no image")])


async def test_a_full_queue_refuses_before_it_looks_at_an_image(narrow: Running) -> None:
    """With as many waiting as may, the next is RESOURCE_EXHAUSTED with RetryInfo, whatever its images are."""
    running = narrow.call(LONG)
    await running.until_token()
    waiting = [narrow.call(LONG), narrow.call(LONG)]
    for call in waiting:
        await call.until_stage(pb.STAGE_QUEUED)
    outcome = await narrow.ask(GARBAGE)
    assert (outcome.code, outcome.domain, outcome.reason) == (EXHAUSTED, "mondrian", "TOO_MANY_ANALYSES")
    assert outcome.retry_after_s > 0
    assert outcome.events == []
    await _end(narrow, running, *waiting)
    assert (await narrow.ask(GARBAGE)).reason == "INVALID_IMAGE"


async def test_full_room_for_images_refuses_images_but_not_text(narrow: Running) -> None:
    """With the room for images taken, a request with images is RESOURCE_EXHAUSTED; one without may wait."""
    running = narrow.call(LONG)
    await running.until_token()
    waiting = narrow.call(pb.AnalysisConfig(images=[pb.Image(data=png(8, 8, size_bytes=MEBIBYTE))]))
    await eventually(lambda: narrow.service.analyses.bytes_held == MEBIBYTE)
    outcome = await narrow.ask(GARBAGE)
    assert (outcome.code, outcome.domain, outcome.reason) == (EXHAUSTED, "mondrian", "TOO_MANY_BYTES")
    assert outcome.retry_after_s > 0
    assert outcome.events == []
    text = narrow.call(LONG)
    await text.until_stage(pb.STAGE_QUEUED)
    await _end(narrow, running, waiting, text)
    assert (await narrow.ask(GARBAGE)).reason == "INVALID_IMAGE"


async def _end(up: Running, *calls: Call) -> None:
    for call in calls:
        call.cancel()
    await eventually(lambda: up.held == NOTHING)
