"""The commands `mondrian list`, `show`, `cancel` and `delete`: the analyses that the server keeps."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

import click

import mondrian
from mondrian_server.cli.access import connect
from mondrian_server.cli.card import card
from mondrian_server.cli.display import human_age
from mondrian_server.cli.names import SHORT, identifier, name_argument, resolve
from mondrian_server.cli.options import address_option, json_option, state_option
from mondrian_server.cli.outcome import EXIT_CODES, describe, exit_code, outcome, tell
from mondrian_server.cli.tables import JSON_HELP, print_json, print_table, print_tabs
from mondrian_server.cli.wrapping import printable

_TEXT_CHARACTERS = 200
_PAGE = 100


@click.command("list", epilog=EXIT_CODES)
@state_option("Only analyses in this state. May be given several times.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="The most analyses to list. 0: all."
)
@json_option(JSON_HELP.format("analysis"))
@address_option
def list_analyses(state: Sequence[mondrian.AnalysisState], limit: int, as_json: bool, address: str) -> None:
    """List the analyses that the server keeps, newest first.

    In a pipe: name, state, time of acceptance, advisor, tokens, the beginning of the text, separated by tabs.
    """
    with outcome(address, as_json=as_json), connect(address) as client:
        listing = client.list(states=state, page_size=min(limit, _PAGE) or _PAGE)
        listed = islice(listing, limit or None)
        if as_json:
            for analysis in listed:
                print_json([analysis.message])
        elif sys.stdout.isatty():
            headings = ("Name", "State", "Age", "Advisor", "Tokens", "Text")
            print_table(headings, [_for_people(analysis) for analysis in listed], cut_last=True)
        else:
            for analysis in listed:
                print_tabs([_for_programs(analysis)])


@click.command(epilog=EXIT_CODES)
@name_argument
@json_option("Print the analysis in proto3 JSON, zeros included.")
@address_option
def show(name: str, as_json: bool, address: str) -> None:
    """Show an analysis: what was asked for, where it is, and its text so far."""
    with outcome(address, as_json=as_json), connect(address) as client:
        analysis = client.get(resolve(client, name))
        if as_json:
            print_json([analysis.message])
            return
        for line in card(analysis):
            click.echo(line)
        if analysis.text:
            click.echo()
            click.echo(printable(analysis.text) if sys.stdout.isatty() else analysis.text, color=True)  # as it is


@click.command(epilog=EXIT_CODES)
@name_argument
@json_option("Print the analysis in proto3 JSON, zeros included.")
@address_option
def cancel(name: str, as_json: bool, address: str) -> None:
    """Cancel an analysis. One that has ended is left as it is."""
    with outcome(address, as_json=as_json), connect(address) as client:
        analysis = client.cancel(resolve(client, name))
        if as_json:
            print_json([analysis.message])
        elif analysis.state is mondrian.AnalysisState.CANCELLED:
            click.echo(f"{analysis.name} is cancelled")
        else:
            click.echo(f"{analysis.name} had ended already: {analysis.state.name.lower()}")


@click.command(epilog=EXIT_CODES)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option("Tell errors as JSON, one a line on stderr.")
@address_option
def delete(names: Sequence[str], as_json: bool, address: str) -> int:
    """Delete ended analyses with everything that is kept of them.

    The names of those that were deleted are printed. An error does not keep the others from being deleted.
    """
    status = 0
    with outcome(address, as_json=as_json), connect(address) as client:
        for name in names:
            try:
                whole = resolve(client, name)
                client.delete(whole)
            except mondrian.Unavailable:
                raise
            except mondrian.MondrianError as error:
                tell(error, describe(error, address), as_json=as_json)
                status = status or exit_code(error)
            else:
                click.echo(whole)
    return status


def _for_people(analysis: mondrian.Analysis) -> tuple[str, ...]:
    age_s = (datetime.now(UTC) - analysis.create_time).total_seconds()
    state = analysis.state.name.lower()
    if analysis.progress is not None:
        state = f"{analysis.progress.stage.name.lower().replace('_', ' ')} {analysis.progress.fraction:.0%}"
    return (
        identifier(analysis.name)[:SHORT],
        state,
        human_age(age_s),
        analysis.advisor.removeprefix("advisors/"),
        str(_tokens(analysis)),
        _beginning(analysis),
    )


def _for_programs(analysis: mondrian.Analysis) -> tuple[str, ...]:
    return (
        analysis.name,
        analysis.state.name,
        analysis.create_time.isoformat(timespec="milliseconds"),
        analysis.advisor,
        str(_tokens(analysis)),
        _beginning(analysis),
    )


def _tokens(analysis: mondrian.Analysis) -> int:
    if analysis.usage is not None:
        return analysis.usage.output_tokens
    return analysis.progress.output_tokens if analysis.progress is not None else 0


def _beginning(analysis: mondrian.Analysis) -> str:
    if analysis.expired:
        return "(expired)"
    text = analysis.text[:_TEXT_CHARACTERS]
    if not text and analysis.error is not None and analysis.state is mondrian.AnalysisState.FAILED:
        text = f"({analysis.error.message[:_TEXT_CHARACTERS]})"
    return " ".join(text.split())
