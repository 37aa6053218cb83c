"""The live display: the text scrolls by on the normal screen, and below it stands where the analysis is.

The display is drawn when an event comes; the server's heartbeat keeps it moving. There is no thread and no timer, so
what stands still on the screen stands still on the server.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

import mondrian
from mondrian_server.cli.screen import Foot
from mondrian_server.cli.wrapping import full_lines, printable

_REDRAW_S = 0.03
_MAX_BAR_WIDTH = 44
_BESIDE_BAR = 32
_FINISHES = {
    mondrian.FinishReason.STOP: "stop",
    mondrian.FinishReason.MAX_TOKENS: "max tokens",
    mondrian.FinishReason.STOP_SEQUENCE: "stop sequence",
    mondrian.FinishReason.DEADLINE: "deadline",
}


class LiveDisplay:
    """Shows one analysis on a terminal. Use it as a context manager."""

    def __init__(self, console: Console, *, shows_text: bool = True) -> None:
        """Prepare a display.

        Args:
            console: the terminal.
            shows_text: False where the text goes elsewhere and the terminal shows only where the analysis is.

        """
        self.console = console
        self._foot = Foot(console)
        self._shows_text = shows_text
        self._open_line = ""
        self._has_text = False
        self._progress: mondrian.Progress | None = None
        self._interruption = ""
        self._spinner = Spinner("dots", style="cyan")
        self._drawn_at = 0.0

    def __enter__(self) -> Self:
        self._draw()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lines, rest = full_lines(self._open_line, self._foot.width)
        self._foot.clear(above=[*lines, rest] if rest else lines)

    def interrupted(self, error: mondrian.MondrianError) -> None:
        """Show until the next event that the stream was interrupted."""
        answered = isinstance(error, mondrian.Unavailable) and not isinstance(error, mondrian.ConnectionFailed)
        reason = f"The server cannot answer: {error.message}" if answered else "The connection to the server was lost"
        self._interruption = f"{reason}. Trying again..."
        self._draw()

    def show(self, event: mondrian.Event) -> None:
        """Show the next event."""
        self._interruption = ""
        match event:
            case mondrian.Token():
                self._append(event.text)
            case mondrian.Progress():
                self._progress = event
            case mondrian.Accepted() | mondrian.Completed():
                return
        if isinstance(event, mondrian.Progress) or time.monotonic() - self._drawn_at >= _REDRAW_S:
            self._draw()

    def _append(self, text: str) -> None:
        if self._shows_text and text:
            self._open_line += printable(text)
            self._has_text = True

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        lines, self._open_line = full_lines(self._open_line, self._foot.width)
        parts: list[RenderableType] = []
        if self._open_line:
            parts.append(Text(self._open_line.rstrip(" "), no_wrap=True))
        if self._has_text:
            parts.append(Text(""))
        parts += status_lines(self._progress, self._spinner, self._foot.width, self._interruption)
        self._foot.draw(Group(*parts), above=lines)


def status_lines(
    progress: mondrian.Progress | None, spinner: RenderableType, width: int, interruption: str
) -> list[RenderableType]:
    """Return the two lines below the text: what happens, and how far it is."""
    message = interruption or (progress.message if progress else "Sending the request...")
    sentence = Table.grid(padding=(0, 1))
    sentence.add_row(spinner, Text(printable(message), no_wrap=True, overflow="ellipsis"))
    if progress is None:
        return [sentence]
    scale = Table.grid(padding=(0, 2))
    scale.add_row(
        ProgressBar(total=1.0, completed=progress.fraction, width=max(8, min(_MAX_BAR_WIDTH, width - _BESIDE_BAR))),
        Text(f"{progress.fraction:4.0%}"),
        Text(human_time(progress.elapsed_s), style="dim"),
        Text(_time_left(progress), style="dim"),
    )
    return [sentence, scale]


def summary(completed: mondrian.Completed) -> str:
    """Return the last line: why it ended, how much and how fast."""
    finish = _FINISHES.get(completed.finish_reason, completed.finish_reason.name.lower())
    return "✓ " + summary_of(finish, completed.usage, completed.timings)


def summary_of(finish: str, usage: mondrian.Usage, timings: mondrian.Timings) -> str:
    """Return why an analysis ended, how much came of it and how fast; `finish` may be empty."""
    parts = [finish] if finish else []
    parts.append(f"{usage.output_tokens} tokens")
    if timings.output_tokens_per_s > 0:
        parts.append(f"{timings.output_tokens_per_s:.1f} tokens/s")
    if timings.time_to_first_token_s is not None:
        parts.append(f"first token {human_time(timings.time_to_first_token_s)}")
    if timings.total_s is not None:
        parts.append(f"total {human_time(timings.total_s)}")
    return " · ".join(parts)


def human_age(seconds: float) -> str:
    """Return a rough time for people: `12 s`, `5 min`, `3 h`, `2 d`."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds // length_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def human_time(seconds: float) -> str:
    """Return a time for people: `0.12 s`, `4.2 s`, `42 s`, `3:05`."""
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def _time_left(progress: mondrian.Progress) -> str:
    if progress.estimated_time_left_s is None:
        return ""
    return f"at most {human_time(progress.estimated_time_left_s)} left"
