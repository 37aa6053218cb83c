"""Where an analysis is shown: a terminal, a pipe or a program that reads JSON."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from typing import TextIO

from google.protobuf import json_format
from rich.text import Text

import mondrian
from mondrian.v1 import analysis_pb2
from mondrian_server.cli.display import LiveDisplay, summary


def show_json(messages: Iterable[analysis_pb2.Event], stdout: TextIO) -> None:
    """Write each event on a line of its own, in proto3 JSON; zeros and empty fields are written too."""
    for message in messages:
        line = json_format.MessageToJson(
            message, indent=None, always_print_fields_with_no_presence=True, ensure_ascii=False
        )
        stdout.write(line + "\n")
        stdout.flush()


def show_live(events: Iterable[mondrian.Event], display: LiveDisplay) -> None:
    """Show the analysis on a terminal, and sum it up."""
    completed = None
    with display:
        for event in events:
            display.show(event)
            if isinstance(event, mondrian.Completed):
                completed = event
    if completed is not None:
        display.console.print()
        display.console.print(Text(summary(completed), style="dim"))


def show_plain(events: Iterable[mondrian.Event], stdout: TextIO, status: LiveDisplay | None) -> None:
    """Write the text and nothing else; where it is goes to `status`."""
    with status or nullcontext() as display, _line_ended(stdout) as write:
        for event in events:
            if isinstance(event, mondrian.Token):
                write(event.text)
            if display is not None:
                display.show(event)


@contextmanager
def _line_ended(stdout: TextIO) -> Generator[Callable[[str], None]]:
    """Give a function that writes at once; end the last line in the end, if there is one."""
    last = "\n"

    def write(text: str) -> None:
        nonlocal last
        stdout.write(text)
        stdout.flush()
        last = text[-1:] or last

    try:
        yield write
    finally:
        if last != "\n":
            stdout.write("\n")
            stdout.flush()
