"""Text: turns a row's tokens into text that is whole at every cut and ends before its stop string."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What a token made certain: text to append, and the stop string that it completed, if any."""

    text: str
    stop: str = ""


class TextAssembler:
    """Assembles one row's text from the bytes that its tokens spell.

    Half of a character is held back until it is whole; bytes that can never become one are dropped, so that the text
    never holds a replacement character that the model did not spell. The longest suffix that could become a stop
    string is held back too. Where a match ends depends on the characters alone, not on how tokens cut them: the first
    match to be complete counts, and of several complete at the same character the longest.
    """

    def __init__(self, stops: Sequence[str]):
        """Watch for `stops`; empty strings are ignored."""
        self._stops = tuple(sorted((stop for stop in stops if stop), key=len, reverse=True))
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._held = ""

    def push(self, spelled: bytes, *, may_stop: bool = True) -> Piece:
        """Take the bytes of one token; with `may_stop` false, a stop string that it completes does not count."""
        fresh = self._decoder.decode(spelled)
        if not self._stops:
            return Piece(text=fresh)
        known = len(self._held)
        self._held += fresh
        if may_stop and (found := self._first_match(known)):
            start, stop = found
            text, self._held = self._held[:start], ""
            return Piece(text=text, stop=stop)
        return Piece(text=self._release())

    def finish(self) -> str:
        """Return what is held back at the end of a row; an incomplete character is dropped."""
        text, self._held = self._held, ""
        return text

    def _first_match(self, known: int) -> tuple[int, str] | None:
        """Return the start and text of the match that is complete first, after the first `known` characters."""
        for end in range(known + 1, len(self._held) + 1):
            for stop in self._stops:
                if self._held.endswith(stop, 0, end):
                    return end - len(stop), stop
        return None

    def _release(self) -> str:
        """Let go of everything but the longest suffix that begins a stop string."""
        keep = self._longest_beginning()
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _longest_beginning(self) -> int:
        longest = min(len(self._held), len(self._stops[0]) - 1)
        for length in range(longest, 0, -1):
            suffix = self._held[-length:]
            if any(len(stop) > length and stop.startswith(suffix) for stop in self._stops):
                return length
        return 0
