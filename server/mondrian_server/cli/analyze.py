"""The command `mondrian analyze`: one analysis, from the command line to the screen."""

import os
import stat
import sys
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import click
from rich.console import Console

import mondrian
from mondrian_server.cli.durations import duration
from mondrian_server.cli.interrupt import cancelled_by_ctrl_c
from mondrian_server.cli.options import address_option, json_option
from mondrian_server.cli.outcome import EXIT_CODES, outcome
from mondrian_server.cli.output import show_json, show_live, show_plain

_STDIN = "-"
_PROMPT_FOR_ONE = "Describe this image."
_PROMPT_FOR_SEVERAL = "Describe these images."
_LIVE_PROGRESS_S = 0.25


class _Arguments(TypedDict):
    prompt: str | None
    advisor: str
    instructions: str
    model: str
    max_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    stop: tuple[str, ...]
    time_limit: float | None
    timeout: float | None
    progress_interval: float | None
    token_interval: float | None
    token_ids: bool
    log_probabilities: bool


@click.command(epilog=EXIT_CODES)
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("-p", "--prompt", help=f"The question or task.  [default with images: {_PROMPT_FOR_ONE}]")
@click.option("-a", "--advisor", default="", help="The advisor that answers; see `mondrian advisors`.")
@click.option("--instructions", default="", help="Your own instructions, in place of an advisor's.")
@click.option("--model", default="", help="The model that answers; see `mondrian models`.")
@click.option("--max-tokens", type=int, help="The most tokens to generate.")
@click.option("--min-tokens", type=int, help="Tokens to generate before the answer may end.")
@click.option("--temperature", type=float, help="From 0 (always the likeliest token) to 2.")
@click.option("--top-p", type=float, help="Keep the likeliest tokens that together have this probability.")
@click.option("--top-k", type=int, help="Keep only this many of the likeliest tokens. 0 keeps all.")
@click.option("--min-p", type=float, help="Keep tokens at least this fraction as probable as the likeliest one.")
@click.option("--repetition-penalty", type=float, help="Above 1: make what was said less likely. 1 changes nothing.")
@click.option("--seed", type=int, help="The same seed gives the same text.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End where this text appears. May be given several times.")
@click.option("--time-limit", type=duration, help="The longest it may take, such as 30s; the text so far is kept.")
@click.option("--timeout", type=duration, help="The deadline of the call; it works like a time limit.")
@click.option("--progress-interval", type=duration, help="How often to tell where it is.  [default: 5s; live: 250ms]")
@click.option("--token-interval", type=duration, help="How long to collect text before showing it.  [default: 100ms]")
@click.option("--token-ids", is_flag=True, help="Tell the ids of the tokens; needs --json.")
@click.option("--log-probabilities", is_flag=True, help="Tell the tokens' log-probabilities; needs --json.")
@json_option("Print one event a line in proto3 JSON, zeros included; an error is a line on stderr.")
@address_option
def analyze(files: tuple[str, ...], as_json: bool, address: str, **arguments: Unpack[_Arguments]) -> None:
    """Analyse images, a prompt or both, and show the answer as it comes.

    FILE is a JPEG, PNG or WebP file; - reads one from standard input. On a terminal you see where the analysis is while
    the text scrolls by; in a pipe there is the text and nothing else. Ctrl-C cancels the analysis.
    """
    _check_usage(files, arguments, as_json=as_json)
    console = Console(file=sys.stdout)
    live = not as_json and sys.stdout.isatty() and not console.is_dumb_terminal
    with outcome(address, files=files, as_json=as_json):
        images = [sys.stdin.buffer if name == _STDIN else name for name in files]
        with mondrian.Client(address) as client, _start(client, images, arguments, live=live) as stream:
            if as_json:
                show_json(cancelled_by_ctrl_c(stream.messages(), stream.cancel), sys.stdout)
            elif live:
                show_live(cancelled_by_ctrl_c(stream, stream.cancel), console)
            else:
                show_plain(cancelled_by_ctrl_c(stream, stream.cancel), sys.stdout, _status_console())


def _check_usage(files: Sequence[str], arguments: _Arguments, *, as_json: bool) -> None:
    if not files and arguments["prompt"] is None:
        raise click.UsageError("give an image, a --prompt or both")
    if files.count(_STDIN) > 1:
        raise click.UsageError("standard input (-) can be read only once")
    if (arguments["token_ids"] or arguments["log_probabilities"]) and not as_json:
        raise click.UsageError("--token-ids and --log-probabilities need --json")


def _start(
    client: mondrian.Client, images: Sequence[mondrian.ImageInput], arguments: _Arguments, *, live: bool
) -> mondrian.AnalysisStream:
    options: dict[str, Any] = dict(arguments)
    prompt = options.pop("prompt")
    progress_s = options.pop("progress_interval")
    delivery = mondrian.Delivery(
        progress_interval_s=_LIVE_PROGRESS_S if live and progress_s is None else progress_s,
        token_interval_s=options.pop("token_interval"),
    )
    detail = mondrian.TokenDetail(ids=options.pop("token_ids"), log_probabilities=options.pop("log_probabilities"))
    default = _PROMPT_FOR_ONE if len(images) == 1 else _PROMPT_FOR_SEVERAL
    return client.analyze(
        default if prompt is None else prompt, images=images, delivery=delivery, token_detail=detail, **options
    )


def _status_console() -> Console | None:
    """Return the terminal behind stderr where the text goes to a file; beside a pipe it would garble the reader's."""
    to_file = stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    return Console(stderr=True) if to_file and sys.stderr.isatty() else None
