"""Packing: several turns about one picture in one row, the picture encoded once.

Every turn sees the prefix (the picture) and itself, and its positions go on from the prefix, so that
a packed turn has the same loss as the turn alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from mondrian_tiny.dialogues import Turn
from mondrian_tiny.sentences import Written, write
from mondrian_tiny.shape import (
    AROUND_IMAGE_ID,
    END_ID,
    GLOBAL_IMAGE_ID,
    IMAGE_ID,
    IMAGE_TOKENS,
    PAD_ID,
    START_ID,
)

ROW_TOKENS: Final = 320
PREFIX_PART: Final = 0
PADDING_PART: Final = -1
_FACT_WEIGHT: Final = 4.0
_BALANCE_WEIGHT: Final = 10.0

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Packed rows, each `(rows, tokens)`; `weights[t]` counts the prediction of token t."""

    ids: Ints
    positions: Ints
    parts: Ints
    weights: Floats


class Packer:
    """Turns turns into rows of token ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._user = [START_ID, *self._ids("user\n")]
        self._reply = [END_ID, *self._ids("\n"), START_ID, *self._ids("assistant\n")]
        image = [AROUND_IMAGE_ID, GLOBAL_IMAGE_ID, *[IMAGE_ID] * IMAGE_TOKENS, AROUND_IMAGE_ID]
        self._image_user = [*self._user, *image]

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def prefix(self, *, image: bool, system: str = "") -> list[int]:
        """Encode what stands before the user's text."""
        before = [START_ID, *self._ids(f"system\n{system}"), END_ID, *self._ids("\n")]
        return [*(before if system else []), *(self._image_user if image else self._user)]

    def turn(self, turn: Turn) -> tuple[list[int], list[float]]:
        """Encode what follows the prefix, with a weight for each token's prediction."""
        question = [*self._ids(turn.asked), *self._reply]
        said, weights = self._weighed(write(turn.said))
        return [*question, *said, END_ID], [*[0.0] * len(question), *weights, 1.0]

    def _weighed(self, written: Written) -> tuple[list[int], list[float]]:
        encoding = self._tokenizer.encode(written.text, add_special_tokens=False)
        weights = [1.0] * len(encoding.ids)
        for start, end, slot in written.spans:
            for index, (a, b) in enumerate(encoding.offsets):
                if a < end and b > start:
                    weights[index] = _BALANCE_WEIGHT if slot == "balance" else _FACT_WEIGHT
        return list(encoding.ids), weights

    def rows(self, packed: Sequence[tuple[list[int], Sequence[Turn]]]) -> Rows:
        """Pack `(prefix, turns)` pairs, one row each; a turn that no longer fits is left out."""
        shape = (len(packed), ROW_TOKENS)
        rows = Rows(
            ids=np.full(shape, PAD_ID, np.int64),
            positions=np.zeros(shape, np.int64),
            parts=np.full(shape, PADDING_PART, np.int64),
            weights=np.zeros(shape, np.float32),
        )
        for row, (prefix, turns) in enumerate(packed):
            self._fill(rows, row, prefix, turns)
        return rows

    def _fill(self, rows: Rows, row: int, prefix: list[int], turns: Sequence[Turn]) -> None:
        at = len(prefix)
        rows.ids[row, :at] = prefix
        rows.positions[row, :at] = range(at)
        rows.parts[row, :at] = PREFIX_PART
        for part, turn in enumerate(turns, start=1):
            ids, weights = self.turn(turn)
            end = at + len(ids)
            if end <= ROW_TOKENS:
                rows.ids[row, at:end] = ids
                rows.positions[row, at:end] = range(len(prefix), len(prefix) + len(ids))
                rows.parts[row, at:end] = part
                rows.weights[row, at:end] = weights
                at = end
