"""The command `mondrian watch`: an analysis that runs by itself, shown from any point of it."""

import click

import mondrian
from mondrian_server.cli.access import connect
from mondrian_server.cli.names import identifier, name_argument, resolve
from mondrian_server.cli.options import address_option, json_option, resume_option
from mondrian_server.cli.outcome import EXIT_CODES, end, outcome
from mondrian_server.cli.view import View


@click.command(epilog=EXIT_CODES)
@name_argument
@click.option("--after", type=click.IntRange(min=0), default=0, help="Begin after the event with this sequence.")
@resume_option
@json_option("Print one event a line in proto3 JSON, zeros included; an error is a line on stderr.")
@address_option
def watch(name: str, after: int, resume_limit: float, as_json: bool, address: str) -> None:
    """Show an analysis as it goes on, first what has come of it already.

    NAME is what `mondrian create` and `mondrian list` print. Ctrl-C stops watching and leaves the analysis alone; the
    last line says how to go on.
    """
    view = View(as_json=as_json)
    with outcome(address, as_json=as_json), connect(address) as client:
        stream = client.watch(
            resolve(client, name), after, resume_limit_s=resume_limit, on_interruption=view.interrupted
        )
        try:
            with stream:
                view.show(stream)
            stopped = stream.left
        except KeyboardInterrupt:
            stopped = True
        if stopped:
            _tell_how_to_go_on(stream, address, as_json=as_json)


def _tell_how_to_go_on(stream: mondrian.EventStream, address: str, *, as_json: bool) -> None:
    command = f"mondrian watch {identifier(stream.analysis)} --after {stream.sequence}"
    if address != mondrian.DEFAULT_ADDRESS:
        command += f" --address {address}"
    line = f"stopped watching; go on with `{command}`"
    end(mondrian.AnalysisCancelled(line, analysis=stream.analysis), line, as_json=as_json)
