"""Access: the client of a command, by the options and the variable that say who calls and whom to trust."""

import os
from pathlib import Path
from typing import Any

import click

import mondrian

KEY_VARIABLE = "MONDRIAN_API_KEY"
_META = "mondrian.access"


def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep an option's value for `connect`; a click callback."""
    context.meta.setdefault(_META, {})[parameter.name] = value


def connect(address: str) -> mondrian.Client:
    """Return a client of the server at `address`, with the key and the certificates that the command was given.

    Raises InvalidRequest where they cannot be used, OSError where a file cannot be read.
    """
    given: dict[str, Any] = click.get_current_context().meta.get(_META, {})
    paths = {"ca": given.get("tls_ca"), "certificate": given.get("tls_cert"), "key": given.get("tls_key")}
    tls = mondrian.Tls(**paths) if any(paths.values()) else bool(given.get("tls"))
    try:
        return mondrian.Client(address, api_key=_api_key(given.get("api_key_file")), tls=tls)
    except ValueError as error:
        raise mondrian.InvalidRequest(_in_options(str(error))) from error


def _api_key(file: str | None) -> str | None:
    """Return the key; it is never an argument, because those are for everybody to see."""
    if file is not None:
        return Path(file).read_text(encoding="utf-8")
    return os.environ.get(KEY_VARIABLE) or None


def _in_options(message: str) -> str:
    return message.replace("(tls=True, or mondrian.Tls)", "(--tls, or --tls-ca FILE)").replace(
        "tls: a certificate and its key", "--tls-cert and --tls-key"
    )
