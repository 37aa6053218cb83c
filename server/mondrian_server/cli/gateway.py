"""The command `mondrian gateway`: the HTTP face of a server that runs elsewhere."""

from functools import partial
from pathlib import Path

import click

from mondrian_server.cli.serve import config_option, page_address, run_service, setting_options
from mondrian_server.errors import StartupError
from mondrian_server.settings import Settings, conflicts_of_gateway, load


@click.command()
@click.option("--target", metavar="HOST:PORT", required=True, help="Where the server listens for gRPC.")
@click.option(
    "--target-ca-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A PEM file with the certificates to trust the server by; without it the connection is not encrypted.",
)
@click.option(
    "--target-has-keys",
    is_flag=True,
    help="Say that the server has keys: then http_address may be any, and requests without a key are refused at once.",
)
@config_option
@setting_options("http_", "log_level", "log_format")
def gateway(
    target: str, target_ca_file: Path | None, target_has_keys: bool, config: str | None, **flags: str | None
) -> int:
    """Serve HTTP and server-sent events for a server that runs elsewhere, until SIGTERM or Ctrl-C.

    It holds no state: callers' keys are passed on, and streams go on by themselves when the server comes back.
    `mondrian serve` does the same by itself.

    Exit status: 0 stopped by SIGTERM or Ctrl-C; 1 the gateway cannot start, and one line says why; 2 the command line
    was not understood.
    """
    conflicts = partial(conflicts_of_gateway, target_has_keys=target_has_keys)
    return run_service(
        lambda given: load(given, config=config, conflicts=conflicts),
        flags,
        lambda settings: _serve(settings, target, target_ca_file, keys_needed=target_has_keys),
    )


def _serve(settings: Settings, target: str, target_ca_file: Path | None, *, keys_needed: bool) -> int:
    from mondrian_server import http_face  # noqa: PLC0415 - help and refused settings need nothing of gRPC

    return http_face.serve_gateway(
        settings,
        target,
        target_ca=_read(target_ca_file),
        keys_needed=keys_needed,
        announce=lambda serving: click.echo(f"The page is at {page_address(settings, serving.port)}"),
    )


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise StartupError(f"--target-ca-file: cannot read {path}: {error.strerror or error}") from error
