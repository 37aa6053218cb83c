"""A row gives the same tokens alone and among 31 others, with caches cold and warm, on a trained and a flat model."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mondrian_server.engine.protocol import Submit
from mondrian_server.events import Stage
from tests.checkpoints import EMBEDDED
from tests.engine.engines import Engine, Seen, picture, request

ROWS = 32
WORDS = ("red", "circle", "what", "héllo", "根據您的問題", "💭", "left of", "?", "\n", "count them")
ADVICE = "You are an advisor. Look at the picture with care and say what you see in it."


def _mixed_requests() -> list[Submit]:
    """Return requests that differ in everything that a request can differ in."""
    chance = random.Random(3)
    album = [picture(seed) for seed in range(2)]
    requests: list[Submit] = []
    for row in range(ROWS):
        shown = chance.sample(album, 2 if row % 16 == 5 else row % 5 == 0)
        settings: dict[str, Any] = {
            "temperature": chance.choice((0.0, 0.0, 0.4, 0.8, 1.0, 1.2)),
            "top_p": chance.choice((1.0, 1.0, 0.9, 0.5)),
            "top_k": chance.choice((0, 0, 5, 40, 300)),
            "min_p": chance.choice((0.0, 0.0, 0.05)),
            "repetition_penalty": chance.choice((1.0, 1.0, 1.2, 0.9)),
            "min_tokens": chance.choice((0, 0, 6)),
            "max_tokens": chance.choice((8, 11, 14)),
            "seed": chance.randrange(2**32),
            "stop": chance.choice(((), (), ("a",), ("th", "e "))),
            "instructions": chance.choice(("", ADVICE)),
            "cache_scope": f"caller {row % 2}",
        }
        prompt = " ".join(chance.choices(WORDS, k=chance.randrange(1, 10)))
        requests.append(request(prompt, pictures=shown, **settings))
    return requests


def _assert_equal(left: Sequence[Seen], right: Sequence[Seen]) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.ids == other.ids
        assert one.text == other.text
        assert one.done.finish_reason == other.done.finish_reason
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-3)


@pytest.mark.timeout(300)  # About ten seconds of processor time, which a busy machine stretches.
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "untrained"])
def test_a_row_gives_the_same_alone_and_in_company(trained: bool, untrained: Path) -> None:
    """Mixed rows: each alone with caches of its own, cold; then all at once with shared ones, cold and then warm."""
    requests = _mixed_requests()
    lonely = [msgspec.structs.replace(one, cache_scope=f"only {n}") for n, one in enumerate(requests)]
    with Engine(EMBEDDED if trained else untrained, slots=ROWS, prefill_step_tokens=48) as engine:
        engine.ready()
        alone = engine.run_alone(lonely)
        cold, warm = engine.run(*requests), engine.run(*requests)
    assert sum(len(row.ids) for row in alone) > 8 * ROWS
    assert all(len(row.log_probabilities) == len(row.ids) == row.done.output_tokens for row in alone)
    for one, row in zip(requests, alone, strict=True):
        assert row.done.cached_tokens == 0
        assert (row.stages[0] == Stage.ENCODING) == bool(one.pictures)
    assert sum(row.done.cached_tokens for row in warm) > 10 * ROWS
    assert max(step.slots_in_use for step in engine.steps) > ROWS // 2
    _assert_equal(alone, cold)
    _assert_equal(alone, warm)


def test_rows_with_one_seed_agree_and_others_differ(flat: Engine) -> None:
    """The seed is all that makes a sampled row what it is."""
    first, second, other = flat.run(*(request(temperature=1.0, seed=seed) for seed in (5, 5, 6)))
    assert first.ids == second.ids
    assert first.ids != other.ids


def test_pictures_that_are_encoded_at_once_give_what_each_gives_alone(flat: Engine) -> None:
    """Ten pictures at once, some encoded beside each other and beside the decoding: the tokens of each alone."""
    requests = [request(pictures=[picture(100 + n)], cache_scope=f"alone {n}") for n in range(10)]
    alone = flat.run_alone(requests)
    together = flat.run(*(msgspec.structs.replace(one, cache_scope="together") for one in requests))
    assert len({tuple(row.ids) for row in alone}) > 5
    assert all(row.done.encode_s > 0 for row in together)
    _assert_equal(alone, together)
