"""Thinking: whether a model thinks before it answers, and the end of thinking after so many tokens.

The end is forced where a row's tokens are chosen, as a function of the row's own tokens alone, so that a continuation
forces it at the same place. mlx-vlm 0.7.10's own budget replaces a token after it was chosen, and forgets at a restart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

START, END = "<think>", "</think>"


class ThinkingError(Exception):
    """The model cannot think as it is told to; the message is one line without the model's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many tokens a row may think.

    start, end: the ids of the tokens around the thoughts. `opened`: the chat template has already written the start.
    """

    tokens: int
    start: int
    end: int
    opened: bool

    def is_thinking(self, tokens: Sequence[int]) -> bool:
        """Whether a row that has generated these tokens is in the middle of a thought."""
        thinking = self.opened
        for token in tokens:
            thinking = token != self.end and (thinking or token == self.start)
        return thinking


def read_budget(tokenizer: Any, turn: str, tokens: int) -> Budget | None:
    """Return the budget for a model whose chat template ends in `turn`; None for 0 tokens; raises ThinkingError."""
    if not tokens:
        return None
    known: dict[str, int] = tokenizer.get_vocab()
    if START not in known or END not in known:
        raise ThinkingError(f"thinking_budget_tokens is set, and the model has no token {END}")
    opened = turn.rfind(START) > turn.rfind(END)
    return Budget(tokens=tokens, start=known[START], end=known[END], opened=opened)


class Thoughts:
    """Who is thinking among the rows of a batch. Nothing here waits for the device."""

    def __init__(self, budget: Budget, thinking: Sequence[mx.array | bool]):
        """Begin with what is known of each row."""
        self._budget = budget
        self._thinking = mx.stack([mx.array(one) for one in thinking])

    def of(self, index: int) -> mx.array:
        """Return whether one row is thinking."""
        return self._thinking[index]

    def limit(self, logits: mx.array, positions: Sequence[int]) -> mx.array:
        """Leave only the end of thinking to the rows that have thought for long enough."""
        if all(position < self._budget.tokens for position in positions):
            return logits
        late = mx.array([position >= self._budget.tokens for position in positions])
        forced = mx.where(mx.arange(logits.shape[-1]) == self._budget.end, 0.0, -mx.inf)
        return mx.where((late & self._thinking)[:, None], forced, logits)

    def note(self, tokens: mx.array) -> None:
        """Count the chosen tokens."""
        self._thinking = (tokens != self._budget.end) & (self._thinking | (tokens == self._budget.start))
