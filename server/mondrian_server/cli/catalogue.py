"""The commands `mondrian advisors` and `mondrian models`: what can be asked."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

import mondrian
from mondrian.v1 import advisor_service_pb2, analysis_pb2, model_service_pb2
from mondrian_server.cli.options import address_option, json_option
from mondrian_server.cli.outcome import EXIT_CODES, outcome
from mondrian_server.cli.wrapping import printable

_JSON_HELP = "Print one {} a line in proto3 JSON, zeros included."


@click.command(epilog=EXIT_CODES)
@json_option(_JSON_HELP.format("advisor"))
@address_option
def advisors(as_json: bool, address: str) -> None:
    """List the advisors that can be asked.

    In a pipe: id, name and description, separated by tabs.
    """
    with outcome(address, as_json=as_json), mondrian.Client(address) as client:
        listed = client.list_advisors()
        if as_json:
            _print_json([_advisor_to_wire(advisor) for advisor in listed])
            return
        rows = [(_id(advisor.name), advisor.display_name, advisor.description) for advisor in listed]
        _print_rows(("Id", "Name", "Description"), rows)


@click.command(epilog=EXIT_CODES)
@json_option(_JSON_HELP.format("model"))
@address_option
def models(as_json: bool, address: str) -> None:
    """List the models that can be asked, the default one first, and in what state they are.

    In a pipe: name, state, architecture, context in tokens, slots in use, slots, queue length, parameters, bytes of its
    weights, separated by tabs.
    """
    with outcome(address, as_json=as_json), mondrian.Client(address) as client:
        listed = client.list_models()
        if as_json:
            _print_json([model_service_pb2.Model(**_fields(model)) for model in listed])
        elif sys.stdout.isatty():
            headings = ("Name", "State", "Architecture", "Context", "Busy", "Waiting", "Size")
            _print_table(headings, [_for_people(model) for model in listed])
        else:
            _print_tabs([_for_programs(model) for model in listed])


def _for_people(model: mondrian.Model) -> tuple[str, ...]:
    return (
        _id(model.name),
        model.state.name.lower(),
        model.architecture,
        f"{model.context_tokens:,}" if model.context_tokens else "",
        f"{model.slots_in_use}/{model.slots}",
        str(model.queue_length),
        f"{_count(model.parameters)}, {decimal(model.weights_bytes)}" if model.parameters else "",
    )


def _for_programs(model: mondrian.Model) -> tuple[str, ...]:
    numbers = (
        model.context_tokens,
        model.slots_in_use,
        model.slots,
        model.queue_length,
        model.parameters,
        model.weights_bytes,
    )
    return (model.name, model.state.name, model.architecture, *map(str, numbers))


def _count(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def _id(name: str) -> str:
    return name.partition("/")[2] or name


def _advisor_to_wire(advisor: mondrian.Advisor) -> advisor_service_pb2.Advisor:
    values = _fields(advisor)
    values["sampling"] = analysis_pb2.Sampling(**_fields(advisor.sampling))
    return advisor_service_pb2.Advisor(**values)


def _fields(value: mondrian.Advisor | mondrian.Model | mondrian.Sampling) -> dict[str, Any]:
    """Return a value's fields, which have the names of the wire's."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _print_json(messages: Sequence[Message]) -> None:
    for message in messages:
        click.echo(
            json_format.MessageToJson(
                message, indent=None, always_print_fields_with_no_presence=True, ensure_ascii=False
            )
        )


def _print_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        _print_table(headings, rows)
    else:
        _print_tabs(rows)


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")  # a name that is cut off cannot be typed
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def _print_tabs(rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        click.echo("\t".join(" ".join(cell.split()) for cell in row))
