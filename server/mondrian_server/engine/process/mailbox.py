"""Mailbox: what other threads tell the MLX thread."""

import threading
from collections import deque
from typing import Generic, TypeVar

Letter = TypeVar("Letter")


class Mailbox(Generic[Letter]):
    """Letters in the order in which they were put."""

    def __init__(self):
        """Begin empty."""
        self._letters: deque[Letter] = deque()
        self._changed = threading.Condition()

    def put(self, letter: Letter) -> None:
        """Leave a letter."""
        with self._changed:
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
