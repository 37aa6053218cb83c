"""The command `mondrian`: a group of commands, each loaded when it is asked for."""

import importlib
from collections.abc import Sequence

import click

COMMANDS = {
    "serve": "mondrian_server.cli.serve:serve",
    "gateway": "mondrian_server.cli.gateway:gateway",
    "doctor": "mondrian_server.cli.doctor:doctor",
    "analyze": "mondrian_server.cli.analyze:analyze",
    "create": "mondrian_server.cli.analyze:create",
    "watch": "mondrian_server.cli.watch:watch",
    "list": "mondrian_server.cli.analyses:list_analyses",
    "show": "mondrian_server.cli.analyses:show",
    "cancel": "mondrian_server.cli.analyses:cancel",
    "delete": "mondrian_server.cli.analyses:delete",
    "export": "mondrian_server.cli.export:export",
    "advisors": "mondrian_server.cli.catalogue:advisors",
    "models": "mondrian_server.cli.catalogue:models",
    "keys": "mondrian_server.cli.keys:keys",
}
"""The commands and where they stand. Client commands start sooner without the server's imports."""

INTERRUPTED = 130
"""The exit status after Ctrl-C where a command has no better one, as shells have it: 128 + SIGINT."""


class _Commands(click.Group):
    """A group that imports a command's module when the command is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Return the command, or None where there is no such one."""
        module, _, function = COMMANDS.get(cmd_name, "").partition(":")
        return getattr(importlib.import_module(module), function) if module else None


@click.group(cls=_Commands, invoke_without_command=True)
@click.version_option(package_name="mondrian-vision", prog_name="mondrian", message="%(prog)s %(version)s")
@click.pass_context
def mondrian(context: click.Context) -> None:
    """Analyse pictures with vision-language models, and always know where the analysis is.

    Exit status: 0 success; 1 failure; 2 the command line was not understood. Each command says more.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (by default the process's own) and return the exit status."""
    try:
        status = mondrian.main(arguments, prog_name="mondrian", standalone_mode=False)
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        click.echo(f"mondrian: {error.format_message()}{_hint(error)}", err=True)
        return error.exit_code
    return status if isinstance(status, int) else 0


def _hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f" (see {context.command_path} --help)" if context else ""
