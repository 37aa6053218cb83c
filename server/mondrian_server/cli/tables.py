"""What commands print about many things: a table for people, tabs for programs, or JSON lines."""

import sys
from collections.abc import Sequence

import click
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mondrian_server.cli.wrapping import printable

JSON_HELP = "Print one {} a line in proto3 JSON, zeros included."


def print_json(messages: Sequence[Message]) -> None:
    """Print each message on a line of its own, in proto3 JSON; zeros and empty fields are written too."""
    for message in messages:
        click.echo(
            json_format.MessageToJson(
                message, indent=None, always_print_fields_with_no_presence=True, ensure_ascii=False
            )
        )


def print_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the rows as a table on a terminal, and separated by tabs elsewhere."""
    if sys.stdout.isatty():
        print_table(headings, rows)
    else:
        print_tabs(rows)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, cut_last: bool = False) -> None:
    """Print a table; `cut_last` keeps each row on one line by cutting off what its last cell has too much."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings[:-1]:
        table.add_column(heading, overflow="fold", no_wrap=cut_last)  # a name that is cut off cannot be typed
    table.add_column(headings[-1], overflow="fold")
    for *cells, last in rows:
        # rich takes the room that is missing from columns that may wrap, so it is the cell that does not.
        final = Text(printable(last), no_wrap=cut_last, overflow="ellipsis" if cut_last else "fold")
        table.add_row(*(Text(printable(cell)) for cell in cells), final)
    Console().print(table)


def print_note(text: str) -> None:
    """Print a sentence for people, wrapped at the width of the terminal."""
    Console().print(Text(printable(text)))


def print_tabs(rows: Sequence[Sequence[str]]) -> None:
    """Print the rows with tabs between their cells; white space inside a cell becomes single spaces."""
    for row in rows:
        click.echo("\t".join(" ".join(cell.split()) for cell in row))
