"""Options that client commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

import mondrian

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
