"""Mailbox: what other threads tell the MLX thread, and the count of rows that the engine holds."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from mondrian_server.engine.process.preparation import Prepared
from mondrian_server.engine.protocol import RowFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A row was submitted."""

    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwanted:
    """A row is cancelled."""

    row: int


Letter: TypeAlias = Arrived | Unwanted | Prepared | RowFailed


class Mailbox:
    """Letters in the order in which they were put."""

    def __init__(self):
        """Begin empty."""
        self._letters: deque[Letter] = deque()
        self._held: set[int] = set()
        self._changed = threading.Condition()

    @property
    def rows_held(self) -> int:
        """Rows submitted and not yet closed."""
        return len(self._held)

    def close(self, row: int) -> None:
        """Count a row as closed."""
        with self._changed:
            self._held.discard(row)

    def put(self, letter: Letter) -> None:
        """Leave a letter."""
        with self._changed:
            if isinstance(letter, Arrived):
                self._held.add(letter.row)
            self._letters.append(letter)
            self._changed.notify()

    def take(self, *, wait: bool) -> list[Letter]:
        """Return all letters; with `wait`, block until there is one."""
        if not wait and not self._letters:
            return []
        with self._changed:
            while wait and not self._letters:
                self._changed.wait()
            letters = list(self._letters)
            self._letters.clear()
            return letters
