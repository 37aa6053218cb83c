"""Batch invariance: a request gives the same tokens alone and among 31 others, with the caches cold and warm."""

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from mondrian.v1 import analysis_pb2 as pb
from tests.checkpoints import EMBEDDED, write_untrained
from tests.service.calls import Outcome, Running, settings_for, started

SAMPLES = sorted(path for path in (EMBEDDED / "samples").iterdir() if path.suffix != ".json")
PROMPTS = (
    "Describe this image.",
    "Which colour dominates?",
    "What are you?",
    "héllo 根據您的問題 💭",
    "Describe it in detail, plane by plane, colour by colour, and say where the light comes from.",
)
LOG_PROBABILITY_NOISE = 2e-3
"""How far log-probabilities may differ between shapes of a batch in half precision, in nats."""


@pytest_asyncio.fixture(scope="module", params=["embedded", "untrained"], loop_scope="session")
async def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A service on a model with margins, and one on a model without any."""
    model = ""
    if request.param == "untrained":
        model = str(write_untrained(tmp_path_factory.mktemp("model") / "untrained"))
    async with started(settings_for(tmp_path_factory.mktemp("data"), model=model)) as running:
        yield running


def mixed_requests() -> list[pb.AnalysisConfig]:
    """Return 32 requests of every kind: pictures and text, greedy and random, filtered, penalised and stopped."""
    assert len(SAMPLES) >= 6
    kinds = itertools.cycle(
        (
            pb.Sampling(),
            pb.Sampling(temperature=0.7, top_p=0.9),
            pb.Sampling(temperature=1.2, top_k=20),
            pb.Sampling(temperature=1.0, min_p=0.05, repetition_penalty=1.2),
            pb.Sampling(temperature=0.3, stop=["the", "zz"]),
            pb.Sampling(repetition_penalty=1.3, min_tokens=10),
            pb.Sampling(temperature=1.1, top_p=0.8, top_k=50, min_p=0.02),
        )
    )
    requests: list[pb.AnalysisConfig] = []
    for index in range(32):
        sampling = pb.Sampling()
        sampling.CopyFrom(next(kinds))
        sampling.seed = 1000 + index // 2
        sampling.max_tokens = 12 + index % 4 * 12
        images = [SAMPLES[(index + offset) % len(SAMPLES)].read_bytes() for offset in range((0, 1, 1, 2)[index % 4])]
        requests.append(
            pb.AnalysisConfig(
                prompt=PROMPTS[index % len(PROMPTS)],
                images=[pb.Image(data=image) for image in images],
                advisor="" if index % 3 else "ansel",
                sampling=sampling,
                token_detail=pb.TokenDetail(ids=True, log_probabilities=True),
            )
        )
    return requests


async def test_thirty_two_at_once_give_what_each_gives_alone(service: Running) -> None:
    """Ids, texts and log-probabilities are those of the request alone, cold, warm and in the crowd."""
    requests = mixed_requests()
    crowd_cold = await asyncio.gather(*(service.ask(request) for request in requests))
    alone = [await service.ask(request) for request in requests]
    crowd_warm = await asyncio.gather(*(service.ask(request) for request in reversed(requests)))
    for index, (cold, single, warm) in enumerate(zip(crowd_cold, alone, reversed(crowd_warm), strict=True)):
        assert_same(cold, single, f"request {index}, crowd with cold caches against alone")
        assert_same(warm, single, f"request {index}, crowd with warm caches against alone")
    assert any(outcome.completed.usage.cached_tokens for outcome in alone), "the prefix cache was used"


def assert_same(one: Outcome, other: Outcome, what: str) -> None:
    """Compare two runs of one request."""
    assert one.error is None, what
    assert other.error is None, what
    assert one.ids == other.ids, what
    assert one.text == other.text, what
    assert one.completed.finish_reason == other.completed.finish_reason, what
    assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=LOG_PROBABILITY_NOISE), what


async def test_a_seed_repeats_and_its_absence_does_not(service: Running) -> None:
    """Two requests with one seed agree, beside each other and later; without a seed each has its own."""

    def config(*, seed: int | None = None) -> pb.AnalysisConfig:
        return pb.AnalysisConfig(
            prompt="Say something.",
            sampling=pb.Sampling(temperature=2.0, max_tokens=40, min_tokens=40, seed=seed),
            token_detail=pb.TokenDetail(ids=True),
        )

    seeded = await asyncio.gather(*(service.ask(config(seed=5)) for _ in range(2)))
    free = await asyncio.gather(*(service.ask(config()) for _ in range(3)))
    assert seeded[0].ids == seeded[1].ids
    assert len({tuple(outcome.ids) for outcome in free}) == 3
    again = await service.ask(config(seed=free[0].accepted.sampling.seed))
    assert again.ids == free[0].ids, "the seed that `accepted` tells repeats the text"
