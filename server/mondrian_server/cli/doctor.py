"""The command `mondrian doctor`: what keeps the service from working here, and what to do about it."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mondrian_server import app, configuration, logs
from mondrian_server.cli.options import json_option
from mondrian_server.cli.screen import Foot
from mondrian_server.cli.serve import config_option, setting_options
from mondrian_server.cli.tables import print_tabs
from mondrian_server.cli.wrapping import printable
from mondrian_server.doctor import EngineParts, Examination, Finding, Level, find_versions
from mondrian_server.engine.supervisor import ENGINE_COMMAND
from mondrian_server.errors import StartupError
from mondrian_server.settings import Settings, load

HEALTHY, ILL = 0, 1
_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


@click.command()
@click.option("--no-model", is_flag=True, help="Look at the model's files, but load nothing.")
@json_option("Print one finding a line as a JSON object.")
@config_option
@setting_options("")
def doctor(no_model: bool, as_json: bool, config: str | None, **flags: str | None) -> int:
    """Look at what the service stands on, and say what to do about what is wrong.

    Versions, the device of MLX, the data directory and its log, ports and who holds them, a server that runs, the files
    that settings name, memory, and the model: it is loaded as the server would load it, and asked for one token. The
    settings are read as `mondrian serve` reads them, from the same flags, variables and file. Nothing is changed.

    In a pipe: result (ok, warning or problem), what was looked at, what was found, and what to do about it, separated
    by tabs.

    Exit status: 0 all is well, or there are warnings alone; 1 there is a problem; 2 the command line was not
    understood.
    """
    logs.configure(level="error", log_format="auto")
    given = {name: value for name, value in flags.items() if value is not None}
    found = asyncio.run(_show(_findings(given, config, loads=not no_model), as_json=as_json))
    return ILL if any(finding.level is Level.PROBLEM for finding in found) else HEALTHY


async def _findings(flags: dict[str, str], config: str | None, *, loads: bool) -> AsyncGenerator[Finding]:
    yield find_versions()
    try:
        settings = load(flags, config=config)
    except StartupError as error:
        for line in str(error).splitlines():
            yield Finding(check="settings", level=Level.PROBLEM, text=line, advice="see `mondrian serve --help`")
        return
    yield Finding(check="settings", level=Level.OK, text="all are known, and in range")
    engine = _engine(settings) if loads else None
    async for finding in Examination(settings=settings, log_name=app.LOG_NAME, engine=engine).findings():
        yield finding


def _engine(settings: Settings) -> EngineParts:
    return EngineParts(
        config=configuration.engine_config(settings),
        limits=configuration.supervision_limits(settings),
        command=ENGINE_COMMAND,
    )


async def _show(findings: AsyncIterator[Finding], *, as_json: bool) -> list[Finding]:
    """Print each finding when it is found, or all of them in one table on a terminal."""
    if as_json:
        return [_printed_as_json(finding) async for finding in findings]
    if not sys.stdout.isatty():
        return [_printed_in_tabs(finding) async for finding in findings]
    console = Console()
    found = await _gathered(findings, Foot(console))
    console.print(_table(found))
    return found


async def _gathered(findings: AsyncIterator[Finding], foot: Foot) -> list[Finding]:
    """Return all findings; while they come, the foot of the screen tells the newest."""
    found: list[Finding] = []
    foot.draw(Text("Looking..."))
    try:
        async for finding in findings:
            found.append(finding)
            foot.draw(Text(f"Looking... {finding.check}: {finding.level.value}"))
    finally:
        foot.clear()
    return found


def _printed_as_json(finding: Finding) -> Finding:
    fields = {"check": finding.check, "result": finding.level.value, "text": finding.text, "advice": finding.advice}
    click.echo(json.dumps(fields, ensure_ascii=False))
    return finding


def _printed_in_tabs(finding: Finding) -> Finding:
    print_tabs([(finding.level.value, finding.check, finding.text, finding.advice)])
    sys.stdout.flush()
    return finding


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("Result", "Check", "Finding"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "Finding")
    for finding in findings:
        text = Text(printable(finding.text))
        if finding.advice:
            text.append(f"\n→ {printable(finding.advice)}", style="bold")
        table.add_row(Text(finding.level.value, style=_COLOURS[finding.level]), Text(finding.check), text)
    return table
