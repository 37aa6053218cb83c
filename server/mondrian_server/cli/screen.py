"""The foot of the screen: a few lines that are drawn over in place while text scrolls by above them.

Lines are written over rather than erased first, so that nothing flickers. No line fills the last column: there, erasing
the rest of a line takes its last character along in some terminals.
"""

from collections.abc import Sequence

from rich.console import Console, RenderableType

_ERASE_TO_LINE_END = "\x1b[K"
_ERASE_TO_SCREEN_END = "\x1b[J"


class Foot:
    """The last lines of a terminal. Between two drawings the cursor stands at the end of the last one."""

    def __init__(self, console: Console) -> None:
        """Draw on this terminal."""
        self._console = console
        self._height = 0

    @property
    def width(self) -> int:
        """The cells that a line may fill."""
        return self._console.width - 1

    def draw(self, foot: RenderableType, *, above: Sequence[str] = ()) -> None:
        """Draw the foot; `above` is printed for good, and scrolls by."""
        lines = self._render(foot)
        drawn = "\n".join(line + _ERASE_TO_LINE_END for line in lines)
        self._write(self._home() + _printed(above) + drawn + _ERASE_TO_SCREEN_END)
        self._height = len(lines)

    def clear(self, *, above: Sequence[str] = ()) -> None:
        """Take the foot away; `above` is printed in its place, and so is what comes next."""
        self._write(self._home() + _printed(above) + _ERASE_TO_SCREEN_END)
        self._height = 0

    def _home(self) -> str:
        return "\r" + (f"\x1b[{self._height - 1}A" if self._height > 1 else "")

    def _render(self, foot: RenderableType) -> list[str]:
        with self._console.capture() as capture:
            self._console.print(foot, width=self.width)
        return capture.get().rstrip("\n").split("\n")

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


def _printed(lines: Sequence[str]) -> str:
    return "".join(f"{line}{_ERASE_TO_LINE_END}\n" for line in lines)
