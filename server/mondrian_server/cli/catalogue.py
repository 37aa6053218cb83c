"""The commands `mondrian advisors` and `mondrian models`: what can be asked."""

import sys
from dataclasses import fields
from typing import Any

import click
from rich.filesize import decimal

import mondrian
from mondrian.v1 import advisor_service_pb2, analysis_pb2, model_service_pb2
from mondrian_server.cli.access import connect
from mondrian_server.cli.options import address_option, json_option
from mondrian_server.cli.outcome import EXIT_CODES, outcome
from mondrian_server.cli.tables import JSON_HELP, print_json, print_note, print_rows, print_table, print_tabs


@click.command(epilog=EXIT_CODES)
@json_option(JSON_HELP.format("advisor"))
@address_option
def advisors(as_json: bool, address: str) -> None:
    """List the advisors that can be asked.

    In a pipe: id, name and description, separated by tabs.
    """
    with outcome(address, as_json=as_json), connect(address) as client:
        listed = client.list_advisors()
        if as_json:
            print_json([_advisor_to_wire(advisor) for advisor in listed])
            return
        rows = [(_id(advisor.name), advisor.display_name, advisor.description) for advisor in listed]
        print_rows(("Id", "Name", "Description"), rows)


@click.command(epilog=EXIT_CODES)
@json_option(JSON_HELP.format("model"))
@address_option
def models(as_json: bool, address: str) -> None:
    """List the models that can be asked, the default one first, and in what state they are.

    In a pipe: name, state, architecture, context in tokens, slots in use, slots, queue length, parameters, bytes of its
    weights, bits of a weight, bits of a key or value (0: not quantised), bytes of memory in use and at most, and while
    it is loaded, bytes done and in all; separated by tabs.
    """
    with outcome(address, as_json=as_json), connect(address) as client:
        listed = client.list_models()
        if as_json:
            print_json([model_service_pb2.Model(**_fields(model)) for model in listed])
        elif sys.stdout.isatty():
            headings = ("Name", "State", "Architecture", "Context", "Busy", "Waiting", "Size")
            print_table(headings, [_for_people(model) for model in listed])
            for model in listed:
                if details := _details(model):
                    print_note(f"{_id(model.name)}: {', '.join(details)}.")
        else:
            print_tabs([_for_programs(model) for model in listed])


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


def _details(model: mondrian.Model) -> list[str]:
    """Say how the model is run, as far as there is anything to say."""
    done = "downloaded" if model.downloading else "loaded"
    of_all = f" of {decimal(model.total_bytes)}" if model.total_bytes else ""
    said = {
        f"{decimal(model.loaded_bytes)}{of_all} {done}": model.loaded_bytes or model.total_bytes,
        f"{decimal(model.active_memory_bytes)} of memory, {decimal(model.peak_memory_bytes)} at most": (
            model.active_memory_bytes
        ),
        f"weights in {model.quantization_bits} bits": model.quantization_bits,
        f"keys and values in {model.kv_cache_bits} bits": model.kv_cache_bits,
        f"adapter {model.adapter}": model.adapter,
        f"thinks for at most {model.thinking_budget_tokens:,} tokens": model.thinking_budget_tokens,
        "thinks": model.thinking and not model.thinking_budget_tokens,
        "may run code of its own": model.trusts_remote_code,
    }
    return [sentence for sentence, true in said.items() if true]


def _for_programs(model: mondrian.Model) -> tuple[str, ...]:
    numbers = (
        model.context_tokens,
        model.slots_in_use,
        model.slots,
        model.queue_length,
        model.parameters,
        model.weights_bytes,
        model.quantization_bits,
        model.kv_cache_bits,
        model.active_memory_bytes,
        model.peak_memory_bytes,
        model.loaded_bytes,
        model.total_bytes,
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
