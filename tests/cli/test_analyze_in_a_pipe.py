"""`mondrian analyze` in a pipe: the text and nothing else, or events as JSON lines; errors are one line and a code."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status

from mondrian.v1 import analysis_pb2 as pb
from tests.cli.programs import MONDRIAN, environment, finish, run, start
from tests.client.scripted_server import ANALYSIS, Context, Script, ScriptedServer, Tape, abort, playing, rich_status

Code = grpc.StatusCode


def _aborting(status: Status) -> Script:
    async def script(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        await abort(context, status)
        yield Tape().unknown()

    return script


def _events(tape: Tape) -> list[pb.Event]:
    accepted = tape.accepted()
    progress = tape.progress(pb.STAGE_GENERATING, "Generating analysis... (1 tokens, 0.0 tps)", 0.25)
    tokens = [tape.token("héllo\n"), tape.token("根據 💭", 1, ids=[5], log_probabilities=[-0.5])]
    return [accepted, progress, *tokens, tape.completed("héllo\n根據 💭", usage=pb.Usage(output_tokens=2))]


async def test_a_pipe_gets_the_text_and_nothing_else(server: ScriptedServer) -> None:
    """Stdout is the text with a line end; stderr is empty."""
    server.script = playing(*_events(Tape()))
    ended = await run("analyze", "-p", "hi", "--address", server.address)
    assert (ended.status, ended.out, ended.err) == (0, "héllo\n根據 💭\n", "")


async def test_the_text_is_passed_on_as_it_comes(server: ScriptedServer) -> None:
    """A token can be read from the pipe while it still runs; SIGINT cancels the analysis by name and ends with 130."""
    tape = Tape()
    server.script = playing(tape.accepted(), tape.token("first\n"), forever=True)
    process = await start("analyze", "-p", "hi", "--address", server.address)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"first\n"
    process.send_signal(signal.SIGINT)
    assert await server.ending() == "cancelled"
    assert await server.cancelled() == ANALYSIS
    ended = await finish(process)
    assert (ended.status, ended.err) == (130, "mondrian: cancelled\n")


async def test_json_is_one_event_a_line(server: ScriptedServer) -> None:
    """Each line is an event in proto3 JSON that parses back to what was sent, zeros written out."""
    events = _events(Tape())
    server.script = playing(*events)
    ended = await run("analyze", "-p", "hi", "--json", "--address", server.address)
    lines = ended.out.splitlines()
    assert [json_format.Parse(line, pb.Event()) for line in lines] == events
    assert json.loads(lines[1])["progress"]["outputTokens"] == 0
    assert (ended.status, ended.err) == (0, "")


async def test_json_tells_a_failure_as_an_event_and_as_an_error(server: ScriptedServer) -> None:
    """`failed` is the last line on stdout; stderr holds one JSON object; the exit code tells the kind."""
    tape = Tape()
    status = rich_status(Code.UNAVAILABLE, "the engine died", reason="ENGINE_UNAVAILABLE", retry_after_s=2)
    events = [tape.accepted(), tape.failed(status)]

    async def script(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        for event in events:
            yield event
        await abort(context, status)

    server.script = script
    ended = await run("analyze", "-p", "hi", "--json", "--address", server.address)
    assert [json_format.Parse(line, pb.Event()) for line in ended.out.splitlines()] == events
    assert ended.status == 3
    assert json.loads(ended.err) == {
        "error": {
            "code": "UNAVAILABLE",
            "reason": "ENGINE_UNAVAILABLE",
            "message": "the engine died (try again in 2 s)",
            "fieldViolations": [],
            "retryAfterSeconds": 2.0,
            "analysis": "analyses/a1",
        }
    }


@pytest.mark.parametrize(
    ("status", "code", "line"),
    [
        (
            rich_status(Code.INVALID_ARGUMENT, "not an image", reason="INVALID_IMAGE", field="config.images[1].data"),
            2,
            "{second}: not an image",
        ),
        (
            rich_status(Code.INVALID_ARGUMENT, "is 0", reason="INVALID_REQUEST", field="config.sampling.max_tokens"),
            2,
            "--max-tokens: is 0",
        ),
        (
            rich_status(Code.RESOURCE_EXHAUSTED, "the queue is full", reason="TOO_MANY_ANALYSES", retry_after_s=1.5),
            5,
            "the queue is full (try again in 1.5 s)",
        ),
        (rich_status(Code.DEADLINE_EXCEEDED, "time is over", reason="DEADLINE_EXCEEDED"), 4, "time is over"),
        (rich_status(Code.INTERNAL, "the model\nraised", reason="GENERATION_FAILED"), 1, "the model raised"),
        (rich_status(Code.UNAVAILABLE, "ending", reason="SHUTTING_DOWN"), 3, "ending"),
        (rich_status(Code.CANCELLED, "the analysis was cancelled", reason=""), 130, "cancelled"),
    ],
    ids=["image", "option", "busy", "deadline", "failed", "unavailable", "cancelled"],
)
async def test_an_error_is_one_line_and_an_exit_code(
    server: ScriptedServer, tmp_path: Path, status: Status, code: int, line: str
) -> None:
    """The line names the file or the option at fault, and when to try again."""
    first, second = tmp_path / "one.png", tmp_path / "two.png"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    server.script = _aborting(status)
    ended = await run("analyze", str(first), str(second), "--resume-limit", "0", "--address", server.address)
    assert (ended.status, ended.out) == (code, "")
    assert ended.err == f"mondrian: {line.format(second=second)}\n"


async def test_no_server_is_told_at_once(server: ScriptedServer) -> None:
    """The line says where nobody answers and what to do; the exit code is 3."""
    await server.stop()
    ended = await run("analyze", "-p", "hi", MONDRIAN_ADDRESS=server.address)
    assert ended.status == 3
    assert ended.err == f"mondrian: no server answers at {server.address} (start one with `mondrian serve`)\n"


async def test_a_lost_connection_is_one_line(server: ScriptedServer) -> None:
    """Without resuming, a server that vanishes leaves the text so far and one line, with no noise of gRPC."""
    tape = Tape()
    server.script = playing(tape.accepted(), tape.token("so far\n"), forever=True)
    process = await start("analyze", "-p", "hi", "--resume-limit", "0", "--address", server.address)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"so far\n"
    await server.stop()
    ended = await finish(process)
    assert ended.status == 3
    assert ended.err.startswith(f"mondrian: the connection to {server.address} was lost")
    assert ended.err.count("\n") == 1


async def test_every_option_reaches_the_server(server: ScriptedServer, tmp_path: Path) -> None:
    """Each option lands in its field of the request."""
    server.script = playing(*_events(Tape()))
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"picture")
    options = [
        "--prompt",
        "What?",
        "--instructions",
        "Short.",
        "--model",
        "models/m",
        "--max-tokens",
        "9",
        "--min-tokens",
        "1",
        "--temperature",
        "0.5",
        "--top-p",
        "0.25",
        "--top-k",
        "0",
        "--min-p",
        "0.125",
        "--repetition-penalty",
        "1.5",
        "--seed",
        "7",
        "--stop",
        "END",
        "--stop",
        "FIN",
        "--time-limit",
        "1m30s",
        "--timeout",
        "1h",
        "--progress-interval",
        "500ms",
        "--token-interval",
        "0",
        "--token-ids",
        "--log-probabilities",
        "--json",
    ]
    ended = await run("analyze", str(picture), "-", *options, "--address", server.address, given=b"given")
    assert ended.status == 0
    expected = pb.AnalysisConfig(
        prompt="What?",
        images=[pb.Image(data=b"picture"), pb.Image(data=b"given")],
        instructions="Short.",
        model="models/m",
        sampling=pb.Sampling(
            max_tokens=9,
            min_tokens=1,
            temperature=0.5,
            top_p=0.25,
            top_k=0,
            min_p=0.125,
            repetition_penalty=1.5,
            seed=7,
            stop=["END", "FIN"],
        ),
        token_detail=pb.TokenDetail(ids=True, log_probabilities=True),
    )
    expected.delivery.token_interval.SetInParent()
    expected.delivery.progress_interval.FromMilliseconds(500)
    expected.time_limit.FromSeconds(90)
    assert server.requests[0].config == expected
    left = server.times_left[0]
    assert left is not None
    assert 3500 < left < 3700


async def test_images_without_a_prompt_are_described(server: ScriptedServer, tmp_path: Path) -> None:
    """One image and several have a default prompt each; an advisor is passed on."""
    server.script = playing(*_events(Tape()))
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"picture")
    await run("analyze", str(picture), "-a", "ansel", "--address", server.address)
    await run("analyze", str(picture), str(picture), "--address", server.address)
    assert [(request.config.prompt, request.config.advisor) for request in server.requests] == [
        ("Describe this image.", "ansel"),
        ("Describe these images.", ""),
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "give an image, a --prompt or both (see mondrian analyze --help)"),
        (["absent.png"], "cannot read absent.png: No such file or directory"),
        (["/"], "cannot read /: Is a directory"),
        (["-", "-"], "standard input (-) can be read only once (see mondrian analyze --help)"),
        (["-p", "x", "--token-ids"], "--token-ids and --log-probabilities need --json (see mondrian analyze --help)"),
        (["-p", "x", "--seed", "-1"], "--seed: cannot be sent: Value out of range: -1"),
        (
            ["-p", "x", "--time-limit", "3x"],
            "Invalid value for '--time-limit': '3x' is not a duration such as 30s, 1m30s or 500ms "
            "(see mondrian analyze --help)",
        ),
    ],
    ids=["nothing", "absent file", "folder", "stdin twice", "needs json", "seed", "duration"],
)
async def test_bad_input_is_told_before_anything_is_sent(
    server: ScriptedServer, arguments: list[str], line: str
) -> None:
    """The line names what is wrong; the exit code is 2."""
    ended = await run("analyze", *arguments, "--address", server.address, given=b"")
    assert (ended.status, ended.out, ended.err) == (2, "", f"mondrian: {line}\n")
    assert server.requests == []


async def test_a_reader_that_leaves_cancels_the_analysis(server: ScriptedServer) -> None:
    """When the pipe's other end is closed, as by `head`, the analysis is cancelled without a traceback."""
    tape = Tape()
    server.script = _chatting(tape)
    analyze = " ".join([*MONDRIAN, "analyze", "-p", "hi", "--address", server.address])
    process = await asyncio.create_subprocess_shell(
        f"{analyze} | head -n 1", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert await server.ending() == "cancelled"
    ended = await finish(process)
    assert (ended.out, ended.err) == ("line\n", "")


def _chatting(tape: Tape) -> Script:
    async def script(_request: object, _context: Context) -> AsyncGenerator[pb.Event]:
        yield tape.accepted()
        while True:
            yield tape.token("line\n")
            await asyncio.sleep(0.01)

    return script
