"""Sampling: chooses the next token of every row at once, each row by its own settings and its own randomness.

A row's choice is a pure function of its logits, its settings, its history, its seed and the token's position: the
Gumbel-max trick makes the argmax of noisy logits an exact sample, and the noise is keyed by (seed, position). So a row
gives the same tokens alone and in any company, and a continuation picks up where the row stopped.

Nothing here waits for the device: mlx-vlm computes the next step while the last one's tokens are handled.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mondrian_server.engine.process.filters import Filters
from mondrian_server.engine.process.mlx_typed import evaluate_later, gumbel, to_mlx, to_numpy
from mondrian_server.engine.process.thinking import Budget, Thoughts
from mondrian_server.engine.protocol import RowSampling

_MASK = np.uint64(0xFFFFFFFFFFFFFFFF)
_LEAST_PENALTY = 1e-6
"""What a smaller repetition penalty counts as: logits divided by less may leave the range of single precision."""


class Draw:
    """The log-probabilities of one step's tokens, read from the device when first asked for."""

    def __init__(self, log_probabilities: mx.array):
        """Hold one value for each row of the step."""
        self._array = log_probabilities
        self._values: list[float] | None = None

    def value(self, index: int) -> float:
        """Return one row's log-probability."""
        if self._values is None:
            self._values = [float(value) for value in to_numpy(self._array)]
        return self._values[index]


class RowDraws:
    """One row's sampling: its settings, its history, and where its newest log-probabilities stand.

    `offset` is the position of the row's first token here: 0, or for a continuation the number of tokens before.
    `history` holds the token ids of the prompt that the repetition penalty counts, beside those tokens.
    """

    def __init__(
        self, sampling: RowSampling, *, history: Sequence[int], tokens: Sequence[int] = (), details: bool = False
    ):
        """Begin after `tokens`, which were generated before."""
        self.sampling = sampling
        self.tokens = tokens
        self.offset = len(tokens)
        self.details = details
        self.history = history
        self.seen: mx.array | None = None
        self.thinking: mx.array | None = None
        self._now: tuple[Draw, int] | None = None
        self._next: tuple[Draw, int] | None = None

    @property
    def penalised(self) -> bool:
        """Whether the row's history matters."""
        return self.sampling.repetition_penalty != 1.0

    def drew(self, draw: Draw, index: int) -> None:
        """Remember where the newest token's log-probability is; tokens come out one step after they are drawn."""
        self._now, self._next = self._next, (draw, index)

    def log_probability(self) -> float:
        """Return the log-probability of the token that came out of the last step."""
        assert self._now is not None
        draw, index = self._now
        return draw.value(index)


class Sampler:
    """The sampler object that mlx-vlm calls once for each step of a batch.

    Args:
        read_logits: returns the step's raw logits, (rows, vocabulary).
        forbidden: token ids that are never chosen: media placeholders.
        ends: token ids that end the turn.
        budget: how long rows may think, if that is bounded.
    """

    def __init__(
        self,
        read_logits: Callable[[], mx.array],
        *,
        forbidden: Sequence[int],
        ends: Sequence[int],
        budget: Budget | None = None,
    ):
        """Serve no rows yet."""
        self._budget = budget
        self._read_logits = read_logits
        self._forbidden = tuple(forbidden)
        self._ends = tuple(ends)
        self._table: _Table | None = None
        self._newcomer: RowDraws | None = None
        self._masks: tuple[mx.array, mx.array] | None = None

    def serve_newcomer(self, row: RowDraws) -> None:
        """Say that the next call, if it comes, samples the first token of `row` alone."""
        self._newcomer = row

    def serve(self, rows: Sequence[RowDraws]) -> None:
        """Say which rows the next call samples, in batch order."""
        self._newcomer = None
        if self._table is None or not self._table.holds(rows):
            if self._table is not None:
                self._table.put_back()
            self._table = _Table(rows, self._budget)

    def __call__(self, _: mx.array) -> mx.array:
        """Refuse: without positions a row's randomness would depend on its neighbours."""
        raise TypeError("this sampler needs positions: mlx-vlm must call sample_target")

    def sample_target(self, _: mx.array, *, row_ids: Sequence[int], positions: Sequence[int]) -> mx.array:
        """Choose a token for each row; `positions` count from each row's first token here."""
        table = self._table if self._newcomer is None else _Table([self._newcomer], self._budget)
        assert table is not None
        assert len(row_ids) == len(positions) == len(table.rows)
        tokens = self._choose(table, self._read_logits().astype(mx.float32), positions)
        if self._newcomer is not None:
            table.put_back()
        return tokens

    def _choose(self, table: "_Table", logits: mx.array, positions: Sequence[int]) -> mx.array:
        at = [row.offset + position for row, position in zip(table.rows, positions, strict=True)]
        if table.penalised:
            logits = table.penalise(logits)
        logits = self._mask(table, logits, at)
        if table.thoughts is not None:
            logits = table.thoughts.limit(logits, at)
        tokens = mx.argmax(table.noisy(logits, at) if table.random else logits, axis=-1)
        if table.penalised:
            table.note(tokens)
        if table.thoughts is not None:
            table.thoughts.note(tokens)
        if table.detailed:
            table.note_details(logits, tokens)
        return tokens

    def _mask(self, table: "_Table", logits: mx.array, at: Sequence[int]) -> mx.array:
        never, end = self._mask_rows(logits.shape[-1])
        logits = logits + never
        if any(position < least for position, least in zip(at, table.least, strict=True)):
            early = mx.array([[position < least] for position, least in zip(at, table.least, strict=True)])
            logits = mx.where(early, logits + end, logits)
        return logits

    def _mask_rows(self, vocabulary: int) -> tuple[mx.array, mx.array]:
        if self._masks is None:
            self._masks = _minus_infinity(vocabulary, self._forbidden), _minus_infinity(vocabulary, self._ends)
        return self._masks


class _Table:
    """The settings of a batch's rows as columns; built anew only when rows come or go."""

    def __init__(self, rows: Sequence[RowDraws], budget: Budget | None):
        self.rows = tuple(rows)
        self.thoughts = None if budget is None else Thoughts(budget, [_is_thinking(row, budget) for row in rows])
        settings = [row.sampling for row in rows]
        self.least = [s.min_tokens for s in settings]
        self.random = any(s.temperature > 0 for s in settings)
        self.penalised = any(row.penalised for row in rows)
        self.detailed = any(row.details for row in rows)
        self._filters = Filters(settings)
        self._temperature = _column([s.temperature if s.temperature > 0 else 1.0 for s in settings])
        self._noise = _column([1.0 if s.temperature > 0 else 0.0 for s in settings])
        self._penalty = _column([max(s.repetition_penalty, _LEAST_PENALTY) for s in settings])
        self._seeds = np.array([s.seed for s in settings], dtype=np.uint64)
        self._seen: mx.array | None = None

    def holds(self, rows: Sequence[RowDraws]) -> bool:
        """Whether this table was made for just these rows, in this order."""
        return len(rows) == len(self.rows) and all(a is b for a, b in zip(rows, self.rows, strict=True))

    def penalise(self, logits: mx.array) -> mx.array:
        """Return the logits with each row's repetition penalty on the tokens that it has seen."""
        if self._seen is None:
            self._seen = mx.stack([_seen(row, logits.shape[-1]) for row in self.rows])
        lowered = mx.where(logits > 0, logits / self._penalty, logits * self._penalty)
        return mx.where(self._seen, lowered, logits)

    def note(self, tokens: mx.array) -> None:
        """Count the chosen tokens as seen from now on."""
        assert self._seen is not None
        self._seen = mx.put_along_axis(self._seen, tokens[:, None], mx.array(True), axis=-1)

    def put_back(self) -> None:
        """Give each row what was noted of it, so that another table can go on with it."""
        if self.thoughts is not None:
            for index, row in enumerate(self.rows):
                row.thinking = self.thoughts.of(index)
        if self._seen is not None:
            for index, row in enumerate(self.rows):
                row.seen = self._seen[index] if row.penalised else None

    def note_details(self, logits: mx.array, tokens: mx.array) -> None:
        """Keep the chosen tokens' log-probabilities for the rows that asked."""
        chosen = mx.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
        values = chosen - mx.logsumexp(logits, axis=-1)
        evaluate_later(tokens, values)
        draw = Draw(values)
        for index, row in enumerate(self.rows):
            if row.details:
                row.drew(draw, index)

    def noisy(self, logits: mx.array, at: Sequence[int]) -> mx.array:
        """Return scores whose argmax is a sample of each random row, and the likeliest token of each greedy one."""
        scaled = (logits - logits.max(axis=-1, keepdims=True)) / self._temperature
        if self._filters.active:
            scaled = self._filters.apply(scaled)
        keys = to_mlx(_keys(self._seeds, np.array(at, dtype=np.uint64)))
        return scaled + gumbel(keys, logits.shape[-1]) * self._noise


def _seen(row: RowDraws, vocabulary: int) -> mx.array:
    if row.seen is not None:
        return row.seen
    seen = np.zeros(vocabulary, dtype=np.bool_)
    if row.penalised:
        seen[[*row.history, *row.tokens]] = True
    return to_mlx(seen)


def _is_thinking(row: RowDraws, budget: Budget) -> mx.array | bool:
    return budget.is_thinking(row.tokens) if row.thinking is None else row.thinking


def _column(values: Sequence[float]) -> mx.array:
    return to_mlx(np.array(values, dtype=np.float32)[:, None])


def _minus_infinity(vocabulary: int, ids: Sequence[int]) -> mx.array:
    row = np.zeros(vocabulary, dtype=np.float32)
    row[[i for i in ids if i < vocabulary]] = -np.inf
    return to_mlx(row)


def _keys(seeds: npt.NDArray[np.uint64], positions: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """Return a key for each (seed, position), spread by SplitMix64 so that neighbours share nothing.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014), the finaliser.
    """
    with np.errstate(over="ignore"):
        state = ((seeds << np.uint64(32)) ^ positions) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = (state ^ (state >> np.uint64(31))) & _MASK
    return np.stack([state >> np.uint64(32), state & np.uint64(0xFFFFFFFF)], axis=-1).astype(np.uint32)
