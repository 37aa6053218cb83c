"""Sampling follows each row's settings exactly, and nothing of a row depends on its neighbours."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mondrian_server.engine.process.sampling import RowDraws, Sampler
from mondrian_server.engine.protocol import RowSampling
from tests.engine.engines import request

VOCABULARY = 300
END, MEDIA = 2, 5
Array = npt.NDArray[np.float32]


def _settings(**settings: Any) -> RowSampling:
    return request(**settings).sampling


def _logits(rows: int, seed: int = 0, spread: float = 2.0) -> Array:
    return np.random.default_rng(seed).normal(0.0, spread, (rows, VOCABULARY)).astype(np.float32)


class Table:
    """A sampler whose logits the test sets."""

    def __init__(self, rows: Sequence[RowDraws]):
        """Serve these rows."""
        self.logits = mx.zeros((1, 1))
        self.rows = list(rows)
        self._sampler = Sampler(lambda: self.logits, forbidden=[MEDIA], ends=[END])

    def draw(self, logits: Array, positions: Sequence[int]) -> list[int]:
        """Return each row's token."""
        self.logits = mx.array(logits.tolist())
        self._sampler.serve(self.rows)
        tokens = self._sampler.sample_target(self.logits, row_ids=[0] * len(self.rows), positions=positions)
        return [int(token) for token in np.asarray(tokens.tolist())]


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def _allowed(logits: Array, settings: RowSampling) -> set[int]:
    """Say which tokens the filters keep, token by token."""
    probabilities = _softmax(logits / settings.temperature)
    order = [int(i) for i in np.argsort(-probabilities)]
    if settings.top_k:
        order = order[: settings.top_k]
    total, mass, kept = float(probabilities[order].sum()), 0.0, list[int]()
    for token in order:
        if mass / total >= settings.top_p:
            break
        kept.append(token)
        mass += float(probabilities[token])
    return {token for token in kept if probabilities[token] >= settings.min_p * probabilities.max()}


def test_samples_follow_the_distribution() -> None:
    """The tokens of many positions come as often as softmax at the row's temperature says."""
    logits, temperature, draws = _logits(1, spread=1.5), 0.8, 20_000
    settings = _settings(temperature=temperature, seed=7)
    rows = [RowDraws(settings, history=(), tokens=range(offset)) for offset in range(draws)]
    tokens = Table(rows).draw(np.repeat(logits, draws, axis=0), [0] * draws)
    logits[0, MEDIA] = -np.inf
    expected = _softmax(logits[0] / temperature) * draws
    counts = np.bincount(tokens, minlength=VOCABULARY)
    common = expected > 50
    deviation = (counts[common] - expected[common]) / np.sqrt(expected[common])
    assert common.sum() > 20
    assert np.abs(deviation).max() < 4.5
    assert 0.6 < float((deviation**2).mean()) < 1.6


def test_filters_keep_the_right_tokens() -> None:
    """Top-k, top-p and min-p, alone and together, keep what their definitions say, and all of it."""
    cases = [
        {"top_k": 1},
        {"top_k": 7},
        {"top_k": 200},
        {"top_p": 0.5},
        {"top_p": 0.05},
        {"min_p": 0.2},
        {"top_k": 20, "top_p": 0.7},
        {"top_k": 40, "top_p": 0.95, "min_p": 0.1},
    ]
    logits = _logits(1, seed=3)
    logits[0, MEDIA] = -30.0
    for case in cases:
        settings = _settings(temperature=1.3, seed=11, **case)
        rows = [RowDraws(settings, history=(), tokens=range(offset)) for offset in range(4000)]
        tokens = set(Table(rows).draw(np.repeat(logits, len(rows), axis=0), [0] * len(rows)))
        allowed = _allowed(logits[0], settings)
        assert tokens <= allowed
        likely = {t for t in allowed if _softmax(logits[0] / 1.3)[t] > 0.01}
        assert likely <= tokens, case


def test_a_row_draws_the_same_alone_and_in_company() -> None:
    """Rows with all kinds of settings give, in one batch, what each gives alone."""
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.7},
        {"temperature": 1.2, "top_p": 0.9},
        {"temperature": 1.0, "top_k": 5},
        {"temperature": 1.0, "top_k": 250, "top_p": 0.8},
        {"temperature": 0.9, "min_p": 0.1},
        {"repetition_penalty": 1.3},
        {"temperature": 1.0, "repetition_penalty": 0.8, "min_tokens": 4},
    ]

    def rows() -> list[RowDraws]:
        return [
            RowDraws(_settings(seed=n, **kind), history=(7, 8, 9), details=n % 2 == 0) for n, kind in enumerate(kinds)
        ]

    together, alone = Table(rows()), [Table([row]) for row in rows()]
    for step in range(12):
        logits = _logits(len(kinds), seed=step)
        assert together.draw(logits, [step] * len(kinds)) == [
            table.draw(logits[n : n + 1], [step])[0] for n, table in enumerate(alone)
        ]


def test_rows_keep_their_history_when_the_batch_changes() -> None:
    """A row's penalty counts its tokens also after others have come and gone."""
    settings = _settings(repetition_penalty=2.0)
    logits = np.abs(_logits(1, seed=4, spread=0.2)) + np.float32(1)
    lone, first = RowDraws(settings, history=()), RowDraws(settings, history=())
    table = Table([lone])
    expected = [table.draw(logits, [step])[0] for step in range(6)]
    changing = Table([first])
    got = [changing.draw(logits, [0])[0]]
    for step in range(1, 6):
        others = [RowDraws(_settings(temperature=1.0), history=()) for _ in range(step % 3)]
        changing.rows = [*others, first]
        got.append(changing.draw(np.repeat(logits, len(others) + 1, axis=0), [step] * (len(others) + 1))[-1])
    assert len(set(expected)) == 6
    assert got == expected


def test_randomness_is_a_function_of_seed_and_position() -> None:
    """A row that begins at an offset draws what an uninterrupted one draws there; other seeds draw otherwise."""
    logits = _logits(1, seed=5)
    whole, other = (RowDraws(_settings(temperature=1.0, seed=seed), history=()) for seed in (3, 4))
    tokens = [Table([whole]).draw(logits, [position])[0] for position in range(30)]
    resumed = RowDraws(_settings(temperature=1.0, seed=3), history=(), tokens=range(10))
    assert [Table([resumed]).draw(logits, [position])[0] for position in range(20)] == tokens[10:]
    assert [Table([other]).draw(logits, [position])[0] for position in range(30)] != tokens
    assert len(set(tokens)) > 5


def test_the_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    """The reported log-probabilities show the distribution after the penalty and the masks, before temperature."""
    logits = _logits(1, seed=6)
    settings = _settings(temperature=0.5, top_k=3, repetition_penalty=1.5, seed=9)
    row = RowDraws(settings, history=(10, 11, 12), details=True)
    table = Table([row])
    (token,) = table.draw(logits, [0])
    table.draw(logits, [1])  # A token comes out of the batch one step after it is drawn.
    expected = logits[0].astype(np.float64)
    for seen in (10, 11, 12):
        expected[seen] = expected[seen] / 1.5 if expected[seen] > 0 else expected[seen] * 1.5
    expected[MEDIA] = -np.inf
    assert abs(row.log_probability() - float(np.log(_softmax(expected.astype(np.float32))[token]))) < 1e-4


def test_the_turn_cannot_end_too_early() -> None:
    """The end of the turn is never chosen before `min_tokens`, and is chosen after where it is likeliest."""
    logits = _logits(1)
    logits[0, END] = 50.0
    row = RowDraws(_settings(min_tokens=3), history=())
    table = Table([row])
    tokens = [table.draw(logits, [position])[0] for position in range(5)]
    assert END not in tokens[:3]
    assert tokens[3:] == [END, END]


def test_a_media_placeholder_is_never_chosen() -> None:
    """Not by the greedy and not by the random, however likely it is."""
    logits = _logits(2)
    logits[:, MEDIA] = 60.0
    rows = [RowDraws(_settings(temperature=temperature), history=()) for temperature in (0.0, 2.0)]
    table = Table(rows)
    assert all(MEDIA not in table.draw(logits, [position, position]) for position in range(20))
