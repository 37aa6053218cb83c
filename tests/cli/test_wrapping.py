"""Text that grows on a terminal, and durations as people type them."""

import click
import pytest
from rich.cells import cell_len

from mondrian_server.cli.durations import duration
from mondrian_server.cli.wrapping import full_lines, printable

_TEXT = "one two  three\n\n  four 留白也是畫 five-six-seven-eight-nine-ten e\N{COMBINING ACUTE ACCENT}leven\n"


@pytest.mark.parametrize("width", range(2, 40))
def test_cuts_do_not_change_the_lines(width: int) -> None:
    """However the text is cut into tokens, the lines are those of the whole text, and none is too long."""
    whole, rest = full_lines(_TEXT, width)
    for size in (1, 2, 5):
        lines: list[str] = []
        open_line = ""
        for start in range(0, len(_TEXT), size):
            full, open_line = full_lines(open_line + _TEXT[start : start + size], width)
            lines += full
        assert (lines, open_line) == (whole, rest)
    assert all(cell_len(line) <= width for line in whole)


def test_words_stay_whole_and_the_last_line_stays_open() -> None:
    """Lines break at spaces; the last one keeps its trailing space for what may follow."""
    assert full_lines("the quick brown fox ", 10) == (["the quick"], "brown fox ")


def test_controls_become_pictures() -> None:
    """Nothing that a model writes can steer the terminal."""
    assert printable("a\x1b[31m\tb\r\nc\x00\x7f") == "a␛[31m    b\nc␀␡"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200), ("1.5", 1.5), (".5s", 0.5), ("0", 0), (" 3S ", 3)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    """Units add up; a bare number is seconds."""
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "3x", "-1s", "1s2", "nan", "inf", "1e3", "1 s"])
def test_other_texts_are_refused(text: str) -> None:
    """What is no duration is a usage error that shows how to write one."""
    with pytest.raises(click.BadParameter, match="such as 30s"):
        duration(text)
