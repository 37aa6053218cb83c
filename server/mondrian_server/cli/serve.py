"""The command `mondrian serve`: reads the settings and runs the service."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mondrian_server import logs
from mondrian_server.errors import StartupError
from mondrian_server.settings import Setting, Settings, describe, load

Command = TypeVar("Command", bound=Callable[..., Any])
CANNOT_START = 1
METAVARS = {
    "address": "HOST:PORT",
    "bytes": "BYTES",
    "characters": "CHARACTERS",
    "dir": "FOLDER",
    "file": "FILE",
    "pixels": "PIXELS",
    "s": "SECONDS",
    "tokens": "TOKENS",
}
"""What a flag takes, by the last word of its name, which is its unit."""


def _setting_options(command: Command) -> Command:
    """Give the command one option for each setting. All are text: the settings check them, whatever their source."""
    for setting in reversed(describe()):
        command = click.option(setting.flag, setting.name, metavar=_metavar(setting), help=_help(setting))(command)
    return command


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return f"[{'|'.join(setting.choices)}]"
    return METAVARS.get(setting.name.rpartition("_")[2], "VALUE")


def _help(setting: Setting) -> str:
    default = f"; default: {setting.default}" if setting.default is not None else ""
    return f"{setting.description}  [env: {setting.variable}{default}]"


@click.command()
@click.option("--config", metavar="FILE", help="A TOML file with settings.  [env: MONDRIAN_CONFIG]")
@_setting_options
def serve(config: str | None, **flags: str | None) -> int:
    """Serve a model over gRPC until SIGTERM or Ctrl-C.

    Each setting is a flag, a variable MONDRIAN_* or a key of a TOML file, with the same name: --max-image-bytes,
    MONDRIAN_MAX_IMAGE_BYTES, max_image_bytes. A flag goes before the environment, the environment before the file,
    the file before the default. Unknown names and mistyped values are refused.

    Exit status: 0 stopped by SIGTERM or Ctrl-C; 1 the service cannot start, and one line says why; 2 the command line
    was not understood.
    """
    try:
        settings = load({name: value for name, value in flags.items() if value is not None}, config=config)
        logs.configure(level=settings.log_level, log_format=settings.log_format)
        return _serve(settings)
    except StartupError as error:
        for line in str(error).splitlines():
            click.echo(f"mondrian: {line}", err=True)
        return CANNOT_START


def _serve(settings: Settings) -> int:
    from mondrian_server import app  # noqa: PLC0415 - help and refused settings need nothing of gRPC

    host = settings.grpc_address.rpartition(":")[0]
    return app.serve(settings, announce=lambda port: click.echo(f"Listening on {host}:{port}"))
