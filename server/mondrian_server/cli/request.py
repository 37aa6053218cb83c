"""The options of a request, which `analyze` and `create` share, and the request that they make."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, TypeVar

import click

import mondrian
from mondrian_server.cli.durations import duration

STDIN = "-"
_PROMPT_FOR_ONE = "Describe this image."
_PROMPT_FOR_SEVERAL = "Describe these images."
_LIVE_PROGRESS_S = 0.25

_F = TypeVar("_F", bound=Callable[..., Any])


class RequestArguments(TypedDict):
    """What click gives for `request_options`."""

    files: tuple[str, ...]
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
    progress_interval: float | None
    token_interval: float | None
    token_ids: bool
    log_probabilities: bool


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("files", metavar="[FILE]...", nargs=-1),
    click.option("-p", "--prompt", help=f"The question or task.  [default with images: {_PROMPT_FOR_ONE}]"),
    click.option("-a", "--advisor", default="", help="The advisor that answers; see `mondrian advisors`."),
    click.option("--instructions", default="", help="Your own instructions, in place of an advisor's."),
    click.option("--model", default="", help="The model that answers; see `mondrian models`."),
    click.option("--max-tokens", type=int, help="The most tokens to generate."),
    click.option("--min-tokens", type=int, help="Tokens to generate before the answer may end."),
    click.option("--temperature", type=float, help="From 0 (always the likeliest token) to 2."),
    click.option("--top-p", type=float, help="Keep the likeliest tokens that together have this probability."),
    click.option("--top-k", type=int, help="Keep only this many of the likeliest tokens. 0 keeps all."),
    click.option("--min-p", type=float, help="Keep tokens at least this fraction as probable as the likeliest one."),
    click.option(
        "--repetition-penalty", type=float, help="Above 1: make what was said less likely. 1 changes nothing."
    ),
    click.option("--seed", type=int, help="The same seed gives the same text."),
    click.option(
        "--stop", multiple=True, metavar="TEXT", help="End where this text appears. May be given several times."
    ),
    click.option("--time-limit", type=duration, help="The longest it may take, such as 30s; the text so far is kept."),
    click.option(
        "--progress-interval", type=duration, help="How often to tell where it is.  [default: 5s; live: 250ms]"
    ),
    click.option(
        "--token-interval", type=duration, help="How long to collect text before showing it.  [default: 100ms]"
    ),
    click.option("--token-ids", is_flag=True, help="Tell the ids of the tokens; needs --json."),
    click.option("--log-probabilities", is_flag=True, help="Tell the tokens' log-probabilities; needs --json."),
)


def request_options(command: _F) -> _F:
    """Add FILE and the options of a request, in the order in which the help tells them."""
    decorated: Any = command
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def check_request(files: Sequence[str], prompt: str | None) -> None:
    """Raise a usage error where there is nothing to ask, or it cannot be read."""
    if not files and prompt is None:
        raise click.UsageError("give an image, a --prompt or both")
    if files.count(STDIN) > 1:
        raise click.UsageError("standard input (-) can be read only once")


def client_arguments(arguments: RequestArguments, *, live: bool) -> dict[str, Any]:
    """Return the request as keyword arguments of the client's `analyze` and `create`."""
    options: dict[str, Any] = dict(arguments)
    files, prompt, progress_s = options.pop("files"), options.pop("prompt"), options.pop("progress_interval")
    default = _PROMPT_FOR_ONE if len(files) == 1 else _PROMPT_FOR_SEVERAL
    options["prompt"] = default if prompt is None else prompt
    options["images"] = [sys.stdin.buffer if name == STDIN else name for name in files]
    options["delivery"] = mondrian.Delivery(
        progress_interval_s=_LIVE_PROGRESS_S if live and progress_s is None else progress_s,
        token_interval_s=options.pop("token_interval"),
    )
    options["token_detail"] = mondrian.TokenDetail(
        ids=options.pop("token_ids"), log_probabilities=options.pop("log_probabilities")
    )
    return options
