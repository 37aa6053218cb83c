"""A small terminal: what a program's output leaves on the screen, scrolled lines included."""

import codecs
import re

from rich.cells import cell_len

_CONTROL = re.compile(r"\x1b\[([\d;?]*)([A-Za-z])")


class Screen:
    """Obeys the controls that the display uses; anything else is an error, and so is a line that is too long."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.raw = ""
        self._lines: list[list[str]] = [[]]  # of cells; a wide character fills its second one with nothing
        self._row = 0
        self._column = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._unread = ""

    @property
    def lines(self) -> list[str]:
        """The lines from the first one printed, without trailing spaces."""
        return ["".join(line).rstrip() for line in self._lines]

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines)

    def feed(self, data: bytes) -> None:
        """Take output."""
        decoded = self._decoder.decode(data)
        self.raw += decoded
        self._unread += decoded
        while self._unread and self._step():
            pass

    def _step(self) -> bool:
        head = self._unread[0]
        if head == "\x1b":
            control = _CONTROL.match(self._unread)
            if control is None:
                assert len(self._unread) < 16, f"unknown control {self._unread[:16]!r}"
                return False  # the rest is still to come
            self._unread = self._unread[control.end() :]
            self._obey(control[1], control[2])
            return True
        self._unread = self._unread[1:]
        match head:
            case "\r":
                self._column = 0
            case "\n":
                self._row += 1
                if self._row == len(self._lines):
                    self._lines.append([])
            case _:
                self._write(head)
        return True

    def _write(self, character: str) -> None:
        assert character.isprintable(), f"unknown control {character!r}"
        line, start, width = self._lines[self._row], self._column, cell_len(character)
        assert width > 0, f"no width: {character!r}"
        assert start + width <= self.columns, f"too long: {self.lines[self._row]!r}"
        line += " " * (start - len(line))
        if line[start : start + 1] == [""]:  # the second half of a wide character, whose first half goes too
            line[start - 1] = " "
        line[start : start + width] = [character, *[""] * (width - 1)]
        if line[start + width : start + width + 1] == [""]:
            line[start + width] = " "
        self._column += width

    def _obey(self, argument: str, final: str) -> None:
        match final:
            case "m":
                pass
            case "A":
                self._row -= int(argument or 1)
                assert self._row >= 0
            case "K":
                del self._lines[self._row][self._column :]
            case "J":
                del self._lines[self._row][self._column :]
                del self._lines[self._row + 1 :]
            case _:
                raise AssertionError(f"unknown control {argument}{final}")
