"""Options that client commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

import mondrian
from mondrian_server.cli.durations import duration

_F = TypeVar("_F", bound=Callable[..., Any])


def address_option(command: _F) -> _F:
    """Add `--address`."""
    return click.option(
        "--address",
        envvar="MONDRIAN_ADDRESS",
        default=mondrian.DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="Where the server listens.",
    )(command)


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
