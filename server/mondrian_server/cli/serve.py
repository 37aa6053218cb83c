"""The command `mondrian serve`: reads the settings and runs the service."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mondrian_server import logs
from mondrian_server.errors import StartupError
from mondrian_server.settings import Setting, Settings, describe, load

if TYPE_CHECKING:
    from mondrian_server.app import Service

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


def setting_options(*prefixes: str) -> Callable[[Command], Command]:
    """Give a command one option for each setting whose name begins so. All are text: the settings check them."""

    def add(command: Command) -> Command:
        for setting in reversed(describe()):
            if setting.name.startswith(prefixes):
                option = click.option(setting.flag, setting.name, metavar=_metavar(setting), help=_help(setting))
                command = option(command)
        return command

    return add


def config_option(command: Command) -> Command:
    """Add `--config`."""
    text = "A TOML file with settings.  [env: MONDRIAN_CONFIG]"
    return click.option("--config", metavar="FILE", help=text)(command)


def run_service(
    read: Callable[[dict[str, str]], Settings], flags: Mapping[str, str | None], run: Callable[[Settings], int]
) -> int:
    """Read the settings and run a service by them; a fault at the start is told in lines, not in a traceback."""
    try:
        settings = read({name: value for name, value in flags.items() if value is not None})
        logs.configure(level=settings.log_level, log_format=settings.log_format)
        return run(settings)
    except StartupError as error:
        for line in str(error).splitlines():
            click.echo(f"mondrian: {line}", err=True)
        return CANNOT_START


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return f"[{'|'.join(setting.choices)}]"
    return METAVARS.get(setting.name.rpartition("_")[2], "VALUE")


def _help(setting: Setting) -> str:
    default = f"; default: {setting.default}" if setting.default is not None else ""
    return f"{setting.description}  [env: {setting.variable}{default}]"


@click.command()
@config_option
@setting_options("")
def serve(config: str | None, **flags: str | None) -> int:
    """Serve a model over gRPC and HTTP until SIGTERM or Ctrl-C.

    Each setting is a flag, a variable MONDRIAN_* or a key of a TOML file, with the same name: --max-image-bytes,
    MONDRIAN_MAX_IMAGE_BYTES, max_image_bytes. A flag goes before the environment, the environment before the file,
    the file before the default. Unknown names and mistyped values are refused.

    Exit status: 0 stopped by SIGTERM or Ctrl-C; 1 the service cannot start, and one line says why; 2 the command line
    was not understood.
    """
    return run_service(lambda given: load(given, config=config), flags, _serve)


def _serve(settings: Settings) -> int:
    from mondrian_server import app  # noqa: PLC0415 - help and refused settings need nothing of gRPC

    def announce(service: "Service") -> None:
        host = settings.grpc_address.rpartition(":")[0]
        click.echo(f"Listening on {host}:{service.port}")
        if service.gateway is not None:
            click.echo(f"The page is at {page_address(settings, service.gateway.port)}")

    return app.serve(settings, announce=announce)


def page_address(settings: Settings, port: int) -> str:
    """Return the address of the gateway's page."""
    scheme = "https" if settings.http_tls_certificate_file else "http"
    return f"{scheme}://{settings.http_address.rpartition(':')[0]}:{port}/"
