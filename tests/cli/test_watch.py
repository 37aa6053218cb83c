"""`mondrian watch`: any analysis, from any point, as `analyze` shows it; Ctrl-C only stops watching."""

import asyncio
import json
import signal
from collections.abc import AsyncGenerator

import grpc
import pytest

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1.analysis_service_pb2 import WatchAnalysisRequest
from tests.cli.programs import finish, run, start, terminal
from tests.client.scripted_server import ANALYSIS, Context, ScriptedServer, Tape, playing, rich_status
from tests.conditions import eventually


def _events() -> list[pb.Event]:
    tape = Tape()
    message = "Generating analysis... (1 tokens, 9.0 tps)"
    return [
        tape.accepted(),
        tape.token("So far"),
        tape.progress(pb.STAGE_GENERATING, message),
        tape.token(" so good", 1),
        tape.completed("So far so good", usage=pb.Usage(output_tokens=2)),
    ]


def _keep(server: ScriptedServer, *, forever: bool = False) -> None:
    async def script(request: WatchAnalysisRequest, _context: Context) -> AsyncGenerator[pb.Event]:
        for event in _events()[request.after_sequence : 3 if forever else None]:
            yield event
        if forever:
            await asyncio.Event().wait()

    server.watch_script = script


async def test_a_pipe_gets_the_text(server: ScriptedServer) -> None:
    """From the beginning the whole text, after an event the rest of it."""
    _keep(server)
    whole = await run("watch", ANALYSIS, "--address", server.address)
    rest = await run("watch", ANALYSIS, "--after", "2", "--address", server.address)
    assert (whole.status, whole.out, whole.err) == (0, "So far so good\n", "")
    assert (rest.status, rest.out, rest.err) == (0, " so good\n", "")
    assert [(watch.name, watch.after_sequence) for watch in server.watches] == [(ANALYSIS, 0), (ANALYSIS, 2)]


async def test_the_terminal_shows_it_as_analyze_does(server: ScriptedServer) -> None:
    """Text and summary stay, the display goes."""
    _keep(server)
    async with terminal(["watch", ANALYSIS, "--address", server.address]) as shown:
        assert await shown.end() == 0
    assert shown.screen.lines == ["So far so good", "", "✓ stop · 2 tokens", ""]


async def test_ctrl_c_stops_watching_and_says_how_to_go_on(server: ScriptedServer) -> None:
    """The analysis is left alone; the last line is a command that goes on after what was seen; the exit code is 130."""
    _keep(server, forever=True)
    async with terminal(["watch", ANALYSIS, "--address", server.address], columns=120) as shown:
        await shown.sees("Generating analysis...")
        shown.type(b"\x03")
        assert await shown.end() == 130
    line = f"mondrian: stopped watching; go on with `mondrian watch a1 --after 3 --address {server.address}`"
    assert shown.screen.lines == ["So far", line, ""]
    assert await server.ending() == "watch cancelled"
    assert server.cancels.empty()


@pytest.mark.parametrize("seen", [0, 3])
async def test_an_interrupt_in_a_pipe_does_the_same(server: ScriptedServer, seen: int) -> None:
    """SIGINT before and after the first event ends with 130 and, with --json, with an object on stderr."""
    if seen:
        _keep(server, forever=True)
    else:
        server.watch_script = playing(forever=True)
    process = await start("watch", ANALYSIS, "--json", "--address", server.address)
    assert process.stdout is not None
    for sequence in range(1, seen + 1):
        assert json.loads(await process.stdout.readline())["sequence"] == sequence
    await eventually(lambda: server.watches, within_s=10.0)
    process.send_signal(signal.SIGINT)
    ended = await finish(process)
    error = json.loads(ended.err)["error"]
    assert ended.status == 130
    assert error["message"].startswith(f"stopped watching; go on with `mondrian watch a1 --after {seen} ")
    assert error["analysis"] == ANALYSIS
    assert server.cancels.empty()


async def test_a_failed_analysis_ends_as_in_analyze(server: ScriptedServer) -> None:
    """The text so far, one line and the exit code of the failure."""
    tape = Tape()
    status = rich_status(grpc.StatusCode.INTERNAL, "the engine crashed 3 times", reason="ENGINE_CRASHED")
    server.watch_script = playing(tape.accepted(), tape.token("So far"), tape.failed(status))
    ended = await run("watch", ANALYSIS, "--address", server.address)
    assert (ended.status, ended.out, ended.err) == (1, "So far\n", "mondrian: the engine crashed 3 times\n")


async def test_a_watch_goes_on_after_a_restart(server: ScriptedServer) -> None:
    """The pipe gets one whole text, though the server went away in between."""
    _keep(server, forever=True)
    process = await start("watch", ANALYSIS, "--json", "--address", server.address)
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(3)]
    _keep(server)
    await server.restart()
    ended = await finish(process)
    sequences = [json.loads(line)["sequence"] for line in [*lines, *ended.out.splitlines()]]
    assert sequences == [1, 2, 3, 4, 5]
    assert (ended.status, ended.err) == (0, "")
