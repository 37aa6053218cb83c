"""The commands `mondrian keys add`, `list` and `revoke`: the callers of a server, and their API keys."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from mondrian_server.callers import CallerLimits
from mondrian_server.callers.editing import add_key, revoke_keys
from mondrian_server.callers.key_file import read_key_file
from mondrian_server.cli.tables import print_rows
from mondrian_server.errors import StartupError
from mondrian_server.settings import load

_F = TypeVar("_F", bound=Callable[..., Any])
_LIMIT = click.IntRange(min=0)


@click.group()
def keys() -> None:
    """Name the callers of a server and give them API keys.

    A server that is started with --keys-file answers to these keys only. It takes changes of the file within seconds.
    The file holds salted hashes: a key that is lost cannot be read from it.
    """


def _file_options(command: _F) -> _F:
    for option in (
        click.option("--config", metavar="FILE", help="A TOML file with settings.  [env: MONDRIAN_CONFIG]"),
        click.option("--keys-file", metavar="FILE", help="The key file.  [env: MONDRIAN_KEYS_FILE, or the settings]"),
    ):
        command = option(command)
    return command


@keys.command()
@click.argument("name", metavar="NAME")
@click.option("--max-running-analyses", type=_LIMIT, help="Analyses in the engine at once; the others wait.")
@click.option("--max-waiting-analyses", type=_LIMIT, help="Analyses that wait.")
@click.option("--max-waiting-bytes", type=_LIMIT, help="Bytes of images of analyses that wait.")
@click.option("--max-requests-per-minute", type=click.IntRange(0, 100_000), help="New analyses within a minute.")
@_file_options
def add(name: str, keys_file: str | None, config: str | None, **limits: int | None) -> None:
    """Give the caller NAME a new key, and print it: it is shown this once.

    A caller may have several keys, so that a new one can be handed out before the old one is revoked. The limits are
    the caller's own, in place of the server's settings; 0: no limit.
    """
    with _told():
        path = _path(keys_file, config)
        key = add_key(path, name, CallerLimits(**limits))
    click.echo(f"Added key {key.id} of {name} to {path}. Keep the key: it cannot be shown again.", err=True)
    click.echo(key.text)


@keys.command("list")
@_file_options
def list_keys(keys_file: str | None, config: str | None) -> None:
    """List the keys: caller, id, when it was made, and whether it is in force."""
    with _told():
        entries = read_key_file(_path(keys_file, config)).keys
    rows = [
        (entry.caller, id_, f"{entry.created:%Y-%m-%d %H:%M}", "revoked" if entry.revoked else "active")
        for id_, entry in entries.items()
    ]
    print_rows(("Caller", "Key", "Created", "State"), rows)


@keys.command()
@click.argument("name", metavar="NAME")
@_file_options
def revoke(name: str, keys_file: str | None, config: str | None) -> None:
    """Revoke every key of the caller NAME, or the one key whose id it is.

    The server refuses a revoked key with PERMISSION_DENIED. Streams that are open go on to their end.
    """
    with _told():
        revoked = revoke_keys(_path(keys_file, config), name)
    for id_ in revoked:
        click.echo(id_)
    if not revoked:
        click.echo("revoked already", err=True)


def _path(keys_file: str | None, config: str | None) -> Path:
    """Return the key file, by the flag or by the server's settings."""
    path = load({} if keys_file is None else {"keys_file": keys_file}, config=config).keys_file
    if path is None:
        raise StartupError("which key file? give --keys-file, or set MONDRIAN_KEYS_FILE or keys_file")
    return path


@contextmanager
def _told() -> Generator[None]:
    """Turn a StartupError into lines on stderr and the exit status 1."""
    try:
        yield
    except StartupError as error:
        for line in str(error).splitlines():
            click.echo(f"mondrian: {line}", err=True)
        raise click.exceptions.Exit(1) from None
