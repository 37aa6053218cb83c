"""A view of a stream: live on a terminal, the text alone in a pipe, or JSON lines."""

import os
import stat
import sys

from rich.console import Console

import mondrian
from mondrian_server.cli.display import LiveDisplay
from mondrian_server.cli.interrupt import left_by_ctrl_c
from mondrian_server.cli.output import show_json, show_live, show_plain


class View:
    """Shows one stream, and that it was interrupted."""

    def __init__(self, *, as_json: bool) -> None:
        """Choose how, by what stdout and stderr are."""
        console = Console(file=sys.stdout)
        self.live = not as_json and sys.stdout.isatty() and not console.is_dumb_terminal
        self._as_json = as_json
        self._display: LiveDisplay | None = None
        if self.live:
            self._display = LiveDisplay(console)
        elif not as_json and (status := _status_console()):
            self._display = LiveDisplay(status, shows_text=False)

    def interrupted(self, error: mondrian.MondrianError, _delay_s: float) -> None:
        """Show that the stream was interrupted and is being resumed."""
        if self._display is not None:
            self._display.interrupted(error)

    def show(self, stream: mondrian.EventStream) -> None:
        """Show the stream to its end; Ctrl-C leaves it."""
        if self._as_json:
            show_json(left_by_ctrl_c(stream.messages(), stream.leave), sys.stdout)
        elif self.live and self._display is not None:
            show_live(left_by_ctrl_c(stream, stream.leave), self._display)
        else:
            show_plain(left_by_ctrl_c(stream, stream.leave), sys.stdout, self._display)


def _status_console() -> Console | None:
    """Return the terminal behind stderr where the text goes to a file; beside a pipe it would garble the reader's."""
    to_file = stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    return Console(stderr=True) if to_file and sys.stderr.isatty() else None
