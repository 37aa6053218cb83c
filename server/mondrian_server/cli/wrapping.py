"""Text that grows: which lines of it are full, and what of it stays open."""

from rich.cells import cell_len

_TAB = "    "
_CONTROLS = (
    {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)


def printable(text: str) -> str:
    """Return text that cannot steer the terminal: controls become pictures of themselves, tabs become spaces."""
    return text.replace("\r\n", "\n").translate(_CONTROLS).replace("\t", _TAB)


def full_lines(text: str, width: int) -> tuple[list[str], str]:
    """Split off the lines that later text cannot change, wrapped at words; return them and the open rest.

    Args:
        text: printable text.
        width: the cells of a line.

    """
    *closed, rest = text.split("\n")
    lines = [line for paragraph in closed for line in wrap(paragraph, width)]
    *wrapped, rest = wrap(rest, width)
    return lines + wrapped, rest


def wrap(paragraph: str, width: int) -> list[str]:
    """Wrap text without line ends; the last line keeps its trailing spaces, for what may follow."""
    lines: list[str] = []
    while (cut := _cut(paragraph, width)) is not None:
        lines.append(paragraph[:cut].rstrip(" "))
        paragraph = paragraph[cut:]
    return [*lines, paragraph]


def _cut(paragraph: str, width: int) -> int | None:
    """Return where the first line ends, or None where everything fits."""
    if cell_len(paragraph.rstrip(" ")) <= width:
        return None
    cells = 0
    last_space = 0
    for index, character in enumerate(paragraph):
        cells += cell_len(character)
        if character == " ":
            last_space = index + 1 if paragraph[:index].strip() else 0
        elif cells > width:
            return last_space or max(index, 1)
    return None
