"""The command `mondrian export`: final texts as CSV or JSON lines."""

import csv
import json
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

import click

import mondrian
from mondrian_server.cli.access import connect
from mondrian_server.cli.options import address_option, state_option
from mondrian_server.cli.outcome import EXIT_CODES, outcome

Row = dict[str, str | int | float | None]
_PAGE = 100
_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")


@click.command(epilog=EXIT_CODES)
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), required=True, help="How to write.")
@click.option("--output", metavar="FILE", help="Where to write.  [default: standard output]")
@state_option("Analyses in this state. May be given several times.  [default: completed]")
@address_option
def export(form: str, output: str | None, state: Sequence[mondrian.AnalysisState], address: str) -> None:
    """Write analyses with their final texts, newest first.

    A text is written only where the analysis is complete, never a part of one. A FILE appears once it is whole.

    In CSV (UTF-8, RFC 4180), a cell of text that a spreadsheet could take for a formula, because it begins with =, +, -
    or @, spaces aside, gets a ' before it; so does one that begins with '. Take one ' off the front of a cell to have
    the text as it was. JSON lines are exact.
    """
    with outcome(address), connect(address) as client, _target(output) as file:
        wanted = state or [mondrian.AnalysisState.COMPLETED]
        rows = (_row(analysis) for analysis in client.list(states=wanted, page_size=_PAGE))
        _WRITERS[form](rows, file)


def _row(analysis: mondrian.Analysis) -> Row:
    complete = analysis.state is mondrian.AnalysisState.COMPLETED
    return {
        "name": analysis.name,
        "state": analysis.state.name,
        "advisor": analysis.advisor,
        "model": analysis.model,
        "instructions": analysis.instructions,
        "prompt": analysis.prompt,
        "image_count": analysis.image_count,
        "create_time": _moment(analysis.create_time),
        "end_time": _moment(analysis.end_time) if analysis.end_time else None,
        "total_s": analysis.timings.total_s if analysis.timings else None,
        "prompt_tokens": analysis.usage.prompt_tokens if analysis.usage else None,
        "output_tokens": analysis.usage.output_tokens if analysis.usage else None,
        "finish_reason": analysis.finish_reason.name if analysis.finish_reason is not None else None,
        "error": (analysis.error.reason or analysis.error.code) if analysis.error else None,
        "text": analysis.text if complete and not analysis.expired else None,
    }


def _moment(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _write_csv(rows: Iterable[Row], file: TextIO) -> None:
    writer = csv.writer(file)  # RFC 4180: lines end with CR LF
    headings = list(_row(mondrian.Analysis(name="", state=mondrian.AnalysisState.UNKNOWN, create_time=datetime.min)))
    writer.writerow(headings)
    for row in rows:
        writer.writerow([_cell(value) for value in row.values()])


def _cell(value: str | float | None) -> str | float | None:
    """Return a cell that no spreadsheet takes for a formula; after OWASP's page on CSV injection."""
    if isinstance(value, str) and value.lstrip().startswith(_FORMULA_STARTS):
        return "'" + value
    return value


def _write_jsonl(rows: Iterable[Row], file: TextIO) -> None:
    for row in rows:
        file.write(json.dumps({_camel(name): value for name, value in row.items()}, ensure_ascii=False) + "\n")


def _camel(name: str) -> str:
    """Return a field's name as proto3 JSON writes it, like all JSON of these commands."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_WRITERS: dict[str, Callable[[Iterable[Row], TextIO], None]] = {"csv": _write_csv, "jsonl": _write_jsonl}


@contextmanager
def _target(output: str | None) -> Generator[TextIO]:
    """Give a file to write to; a regular one takes its place only when everything is written."""
    if output is None or output == "-":
        yield sys.stdout
        return
    path = Path(output)
    in_place = path.exists() and not path.is_file()  # a pipe or a device
    part = path if in_place else path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        if not in_place:
            part.replace(path)
    except OSError as error:
        raise mondrian.InvalidRequest(f"cannot write {output}: {error.strerror}") from error
    finally:
        if not in_place:
            part.unlink(missing_ok=True)
