"""Filters: top-k, then top-p, then min-p, each row by its own settings.

A row's tokens are filtered by a lowest score to keep. How it is found depends on the row's own settings alone, never on
its neighbours: sorting a whole vocabulary is most of what sampling costs, so rows that need no sorting, or only that
of a few candidates, are not made to pay for others.
"""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mondrian_server.engine.process.mlx_typed import to_mlx
from mondrian_server.engine.protocol import RowSampling

_CANDIDATES = 128


class Filters:
    """The filters of a batch's rows. Scores are log-probabilities up to a constant, after temperature, at most 0."""

    def __init__(self, settings: Sequence[RowSampling]):
        """Read each row's settings; greedy rows are not filtered."""
        random = [s.temperature > 0 for s in settings]
        cuts = [r and (s.top_p < 1 or s.top_k > 0) for r, s in zip(random, settings, strict=True)]
        few = [cut and 0 < s.top_k <= _CANDIDATES for cut, s in zip(cuts, settings, strict=True)]
        many = [cut and not small for cut, small in zip(cuts, few, strict=True)]
        least = [s.min_p if r else 0.0 for r, s in zip(random, settings, strict=True)]
        self.active = any(cuts) or any(least)
        self._groups = [_Group(settings, rows, n) for rows, n in ((few, _CANDIDATES), (many, 0)) if any(rows)]
        with np.errstate(divide="ignore"):
            self._least = to_mlx(np.log(np.array(least, dtype=np.float32))[:, None])

    def apply(self, scores: mx.array) -> mx.array:
        """Return the scores with minus infinity for every token that is filtered out."""
        lowest = self._least
        if self._groups:
            cut = mx.full((scores.shape[0], 1), -mx.inf)
            for group in self._groups:
                cut[group.rows] = group.cut(scores)
            lowest = mx.maximum(lowest, cut)
        return mx.where(scores >= lowest, scores, -mx.inf)


class _Group:
    """Rows whose top-k and top-p are found in the same way: among so many candidates, or with 0 among all tokens."""

    def __init__(self, settings: Sequence[RowSampling], chosen: Sequence[bool], candidates: int):
        members = [index for index, is_member in enumerate(chosen) if is_member]
        self.rows = to_mlx(np.array(members, dtype=np.int32))
        self._candidates = candidates
        top_k = [settings[index].top_k or np.inf for index in members]
        top_p = [settings[index].top_p if settings[index].top_p < 1 else np.inf for index in members]
        self._top_k = to_mlx(np.array(top_k, dtype=np.float32)[:, None])
        self._top_p = to_mlx(np.array(top_p, dtype=np.float32)[:, None])

    def cut(self, scores: mx.array) -> mx.array:
        """Return the lowest score that top-k and then top-p keep; equal scores are kept or dropped together."""
        descending = self._descending(scores[self.rows])
        rank = mx.arange(descending.shape[-1])
        in_top_k = rank < self._top_k
        probabilities = mx.softmax(mx.where(in_top_k, descending, -mx.inf), axis=-1)
        before = mx.cumsum(probabilities, axis=-1) - probabilities
        kept = (in_top_k & (before < self._top_p)).sum(axis=-1, keepdims=True)
        return mx.take_along_axis(descending, mx.maximum(kept, 1) - 1, axis=-1)

    def _descending(self, scores: mx.array) -> mx.array:
        vocabulary = scores.shape[-1]
        if 0 < self._candidates < vocabulary:
            scores = mx.partition(scores, vocabulary - self._candidates, axis=-1)[:, -self._candidates :]
        return mx.sort(scores, axis=-1)[:, ::-1]
