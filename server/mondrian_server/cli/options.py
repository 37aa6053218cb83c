"""Options that client commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

import mondrian
from mondrian_server.cli.access import keep
from mondrian_server.cli.durations import duration

_F = TypeVar("_F", bound=Callable[..., Any])


_ACCESS_OPTIONS = (
    click.option(
        "--address",
        envvar="MONDRIAN_ADDRESS",
        default=mondrian.DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="Where the server listens.",
    ),
    click.option(
        "--api-key-file",
        metavar="FILE",
        expose_value=False,
        callback=keep,
        help="A file with the API key.  [default: the key in MONDRIAN_API_KEY]",
    ),
    click.option("--tls", is_flag=True, expose_value=False, callback=keep, help="Encrypt the connection."),
    click.option(
        "--tls-ca",
        metavar="FILE",
        expose_value=False,
        callback=keep,
        help="The authorities to trust the server by, PEM; implies --tls.",
    ),
    click.option(
        "--tls-cert",
        metavar="FILE",
        expose_value=False,
        callback=keep,
        help="Your client certificate, PEM; implies --tls.",
    ),
    click.option("--tls-key", metavar="FILE", expose_value=False, callback=keep, help="Its private key, PEM."),
)


def address_option(command: _F) -> _F:
    """Add `--address`, and how to get in there: see `connect`."""
    decorated: Any = command
    for option in reversed(_ACCESS_OPTIONS):
        decorated = option(decorated)
    return decorated


def json_option(what: str) -> Callable[[_F], _F]:
    """Add `--json`."""

    def add(command: _F) -> _F:
        return click.option("--json", "as_json", is_flag=True, help=what)(command)

    return add


def resume_option(command: _F) -> _F:
    """Add `--resume-limit`."""
    return click.option(
        "--resume-limit",
        type=duration,
        default="2m",
        show_default=True,
        help="How long to try again when the server or the connection is lost. 0: not at all.",
    )(command)


def state_option(what: str) -> Callable[[_F], _F]:
    """Add `--state`."""
    names = {state.name.lower(): state for state in mondrian.AnalysisState if state}

    def values(_context: click.Context, _parameter: click.Parameter, typed: tuple[str, ...]) -> list[object]:
        return [names[name] for name in typed]

    def add(command: _F) -> _F:
        return click.option("--state", type=click.Choice(list(names)), multiple=True, callback=values, help=what)(
            command
        )

    return add
