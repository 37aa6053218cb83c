"""The commands `mondrian analyze` and `mondrian create`: a request, and its answer or its name."""

from typing import Any, Unpack

import click

from mondrian_server.cli.access import connect
from mondrian_server.cli.durations import duration
from mondrian_server.cli.options import address_option, json_option, resume_option
from mondrian_server.cli.outcome import EXIT_CODES, outcome
from mondrian_server.cli.request import RequestArguments, check_request, client_arguments, request_options
from mondrian_server.cli.tables import print_json
from mondrian_server.cli.view import View


@click.command(epilog=EXIT_CODES)
@request_options
@click.option("--timeout", type=duration, help="The deadline of the call; works like a slightly shorter time limit.")
@resume_option
@json_option("Print one event a line in proto3 JSON, zeros included; an error is a line on stderr.")
@address_option
def analyze(
    as_json: bool, address: str, timeout: float | None, resume_limit: float, **arguments: Unpack[RequestArguments]
) -> None:
    """Analyse images, a prompt or both, and show the answer as it comes.

    FILE is an image file; - reads one from standard input. On a terminal you see where the analysis is while
    the text scrolls by; in a pipe there is the text and nothing else. When the connection is lost, the answer goes on
    where it stopped as soon as the server is back. Ctrl-C cancels the analysis.
    """
    check_request(arguments["files"], arguments["prompt"])
    if (arguments["token_ids"] or arguments["log_probabilities"]) and not as_json:
        raise click.UsageError("--token-ids and --log-probabilities need --json")
    view = View(as_json=as_json)
    with outcome(address, files=arguments["files"], as_json=as_json):
        request: dict[str, Any] = client_arguments(arguments, live=view.live)
        with (
            connect(address) as client,
            client.analyze(
                timeout=timeout, resume_limit_s=resume_limit, on_interruption=view.interrupted, **request
            ) as stream,
        ):
            view.show(stream)


@click.command(epilog=EXIT_CODES)
@request_options
@json_option("Print the analysis in proto3 JSON, zeros included; an error is a line on stderr.")
@address_option
def create(as_json: bool, address: str, **arguments: Unpack[RequestArguments]) -> None:
    """Create an analysis that runs by itself, and print its name.

    It goes on without this command, through lost connections and restarts of the server. Look at it with
    `mondrian watch NAME` or `mondrian show NAME`. The options are those of `mondrian analyze`.
    """
    check_request(arguments["files"], arguments["prompt"])
    with outcome(address, files=arguments["files"], as_json=as_json), connect(address) as client:
        request: dict[str, Any] = client_arguments(arguments, live=False)
        analysis = client.create(**request)
        if as_json:
            print_json([analysis.message])
        else:
            click.echo(analysis.name)
