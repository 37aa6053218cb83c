"""`mondrian analyze` on a terminal: the text scrolls by, and below it stands where the analysis is."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest

from mondrian.v1 import analysis_pb2 as pb
from tests.cli.programs import terminal
from tests.client.scripted_server import Context, Script, ScriptedServer, Tape, abort, playing, rich_status

TEXT = (
    "Three planes of colour meet: a red one, a blue one and a small yellow one. Black lines hold them apart.\n"
    "\n"
    "The whites between are not empty; 留白也是畫的一部分, and they push the red to the edge 💭 of the canvas.\n"
    "    indented, then a-word-that-is-longer-than-any-line-of-the-terminal-and-must-be-cut-somewhere-in-the-middle!"
)


def _ask(server: ScriptedServer, *more: str) -> list[str]:
    return ["analyze", "--address", server.address, "-p", "hi", *more]


def _tokens(tape: Tape, text: str) -> list[pb.Event]:
    return [tape.token(text[start : start + 7], start) for start in range(0, len(text), 7)]


def _script_of_stages(step: asyncio.Event) -> Script:
    """Tell each stage, and go on to the next when the test says so."""
    tape = Tape()
    accepted = tape.accepted(queue_position=3)
    queued = tape.progress(pb.STAGE_QUEUED, "Waiting in the queue (position 3)...", 0.0, queue_position=3)
    generating = tape.progress(
        pb.STAGE_GENERATING, "Generating analysis... (50 tokens, 40.0 tps)", 0.62, output_tokens=50
    )
    generating.progress.elapsed.FromMilliseconds(4210)
    generating.progress.estimated_time_left.FromMilliseconds(12_000)

    async def script(_request: object, _context: Context) -> AsyncGenerator[pb.Event]:
        for event in (accepted, queued, generating, tape.completed("")):
            yield event
            if event.WhichOneof("payload") == "progress":
                await step.wait()
                step.clear()

    return script


async def test_the_text_stays_and_the_status_goes(server: ScriptedServer) -> None:
    """In the end the screen holds the wrapped text and one line of summary, and nothing of the display."""
    tape = Tape()
    completed = tape.completed(TEXT, usage=pb.Usage(output_tokens=57))
    completed.completed.timings.output_tokens_per_s = 41.25
    completed.completed.timings.time_to_first_token.FromMilliseconds(120)
    completed.completed.timings.total.FromMilliseconds(1530)
    progress = tape.progress(pb.STAGE_GENERATING, "Generating analysis... (5 tokens, 40.0 tps)", 0.3)
    server.script = playing(tape.accepted(), progress, *_tokens(tape, TEXT), completed)
    async with terminal(_ask(server)) as shown:
        assert await shown.end() == 0
    assert shown.screen.lines == [
        "Three planes of colour meet: a red one, a blue one and a small yellow one.",
        "Black lines hold them apart.",
        "",
        "The whites between are not empty; 留白也是畫的一部分, and they push the red to",
        "the edge 💭 of the canvas.",
        "    indented, then",
        "a-word-that-is-longer-than-any-line-of-the-terminal-and-must-be-cut-somewhere-i",
        "n-the-middle!",
        "",
        "✓ stop · 57 tokens · 41.2 tokens/s · first token 0.12 s · total 1.5 s",
        "",
    ]


async def test_each_stage_is_shown_as_it_comes(server: ScriptedServer) -> None:
    """Queue position, sentence, fraction, elapsed time and time left stand on the screen while they hold."""
    step = asyncio.Event()
    server.script = _script_of_stages(step)
    async with terminal(_ask(server)) as shown:
        await shown.sees("Waiting in the queue (position 3)...")
        step.set()
        await shown.sees("Generating analysis... (50 tokens, 40.0 tps)")
        await shown.sees("62%  4.2 s  at most 12 s left")
        assert "Waiting" not in shown.screen.text
        step.set()
        assert await shown.end() == 0


async def test_the_text_is_shown_before_it_is_complete(server: ScriptedServer) -> None:
    """Text stands on the screen while the analysis still runs, its unfinished line included."""
    tape = Tape()
    progress = tape.progress(pb.STAGE_GENERATING, "Generating analysis... (2 tokens, 9.0 tps)")
    server.script = playing(tape.accepted(), tape.token("A first line.\nAn open"), progress, forever=True)
    async with terminal(_ask(server)) as shown:
        await shown.sees("Generating analysis... (2 tokens")
        assert shown.screen.lines[:4] == ["A first line.", "An open", "", shown.screen.lines[3]]


async def test_a_finished_line_scrolls_up(server: ScriptedServer) -> None:
    """When the open line is finished it stays above, and the display stands once below it."""
    tape = Tape()
    step = asyncio.Event()

    async def script(_request: object, _context: Context) -> AsyncGenerator[pb.Event]:
        yield tape.accepted()
        yield tape.token("An open")
        yield tape.progress(pb.STAGE_GENERATING, "Generating analysis... (1 tokens, 9.0 tps)")
        await step.wait()
        yield tape.token(" line.\n")
        yield tape.progress(pb.STAGE_GENERATING, "Generating analysis... (2 tokens, 9.0 tps)")
        await asyncio.Event().wait()

    server.script = script
    async with terminal(_ask(server)) as shown:
        await shown.sees("(1 tokens")
        step.set()
        await shown.sees("(2 tokens, 9.0 tps)\n━")
        assert shown.screen.lines[:2] == ["An open line.", ""]
        assert len(shown.screen.lines) == 4


async def test_ctrl_c_cancels_and_keeps_the_text(server: ScriptedServer) -> None:
    """Ctrl-C ends with 130, the server sees the cancel, and the text so far stays on the screen."""
    tape = Tape()
    progress = tape.progress(pb.STAGE_GENERATING, "Generating analysis... (1 tokens, 9.0 tps)")
    server.script = playing(tape.accepted(), tape.token("So far"), progress, forever=True)
    async with terminal(_ask(server)) as shown:
        await shown.sees("Generating")
        shown.type(b"\x03")
        assert await server.ending() == "cancelled"
        assert await shown.end() == 130
    assert shown.screen.lines == ["So far", "mondrian: cancelled", ""]


async def test_a_failure_is_one_line_below_the_text(server: ScriptedServer) -> None:
    """The text so far stays; the error says when to try again; the exit code tells the kind."""
    tape = Tape()
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "the engine died", reason="ENGINE_UNAVAILABLE", retry_after_s=2)
    events = [tape.accepted(), tape.token("So far"), tape.failed(status)]

    async def script(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        for event in events:
            yield event
        await abort(context, status)

    server.script = script
    async with terminal(_ask(server)) as shown:
        assert await shown.end() == 3
    assert shown.screen.lines == ["So far", "mondrian: the engine died (try again in 2 s)", ""]


async def test_text_cannot_steer_the_terminal(server: ScriptedServer) -> None:
    """Escape sequences in the text are shown, not obeyed."""
    tape = Tape()
    server.script = playing(tape.accepted(), tape.token("a\x1b]0;title\x07b\x1b[2Jc\x9bd"), tape.completed("x"))
    async with terminal(_ask(server)) as shown:
        assert await shown.end() == 0
    assert shown.screen.lines[0] == "a␛]0;title␇b␛[2Jc\N{REPLACEMENT CHARACTER}d"


@pytest.mark.parametrize("columns", [20, 40, 200])
async def test_the_display_fits_any_width(server: ScriptedServer, columns: int) -> None:
    """No line is longer than the terminal is wide, and the text is all there."""
    tape = Tape()
    progress = tape.progress(pb.STAGE_GENERATING, "Generating analysis... (50 tokens, 40.0 tps)", 0.5)
    progress.progress.estimated_time_left.FromSeconds(75)
    server.script = playing(tape.accepted(), progress, *_tokens(tape, TEXT), progress, tape.completed(TEXT))
    async with terminal(_ask(server), columns=columns) as shown:
        assert await shown.end() == 0
    assert "".join("".join(shown.screen.lines).split("✓")[0].split()) == "".join(TEXT.split())


async def test_the_live_display_asks_for_a_quick_heartbeat(server: ScriptedServer) -> None:
    """On a terminal progress comes four times a second, unless the user says otherwise."""
    tape = Tape()
    server.script = playing(tape.accepted(), tape.completed(""))
    async with terminal(_ask(server)) as shown:
        assert await shown.end() == 0
    async with terminal(_ask(server, "--progress-interval", "2s")) as shown:
        assert await shown.end() == 0
    intervals = [request.config.delivery.progress_interval.ToMilliseconds() for request in server.requests]
    assert intervals == [250, 2000]


async def test_into_a_file_the_terminal_shows_only_where_it_is(server: ScriptedServer, tmp_path: Path) -> None:
    """With stdout in a file, the file gets the text and the terminal the status, which goes in the end."""
    step = asyncio.Event()
    server.script = _script_of_stages(step)
    target = tmp_path / "answer.txt"
    with target.open("wb") as file:
        async with terminal(_ask(server), stdout=file.fileno()) as shown:
            await shown.sees("Waiting in the queue (position 3)...")
            step.set()
            await shown.sees("Generating analysis...")
            step.set()
            assert await shown.end() == 0
    assert shown.screen.text == ""
    assert target.read_text() == ""


async def test_a_terminal_without_controls_gets_plain_text(server: ScriptedServer) -> None:
    """TERM=dumb is treated like a pipe."""
    tape = Tape()
    server.script = playing(tape.accepted(), tape.token("plain"), tape.completed("plain"))
    async with terminal(_ask(server), TERM="dumb") as shown:
        assert await shown.end() == 0
    assert shown.screen.raw == "plain\r\n"


async def test_an_interruption_is_shown_until_the_text_goes_on(server: ScriptedServer) -> None:
    """While the connection is lost the display says so; then the text goes on where it stopped."""
    tape = Tape()
    events = [tape.accepted(), tape.token("So far"), tape.token(" so good"), tape.completed("So far so good")]
    step = asyncio.Event()

    async def lose(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        for event in events[:2]:
            yield event
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    async def go_on(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        if not step.is_set():
            status = rich_status(grpc.StatusCode.UNAVAILABLE, "not yet", reason="LOG_UNAVAILABLE", retry_after_s=0.2)
            await abort(context, status)
        for event in events[2:]:
            yield event

    server.script, server.watch_script = lose, go_on
    async with terminal(_ask(server)) as shown:
        await shown.sees("The server cannot answer: not yet. Trying again...")
        step.set()
        assert await shown.end() == 0
    assert "".join(shown.screen.lines).startswith("So far so good✓ ")
    assert {watch.after_sequence for watch in server.watches} == {2}
