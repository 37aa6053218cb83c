"""Re-attaching: a server that goes and comes back behind the gateway, and what a phone notices of it."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import httpx
import pytest

from mondrian.v1 import analysis_pb2 as pb
from mondrian_server.gateway.options import Limits
from tests.client.scripted_server import Context, ScriptedServer, Tape, abort, playing, rich_status
from tests.conditions import eventually
from tests.gateway.face import Face, Stream, error_of, facing, free_port, standing_alone, take
from tests.service.programs import program

CONFIG = {
    "prompt": "Describe it in detail.",
    "sampling": {"maxTokens": 500, "minTokens": 500, "temperature": 0.9, "topP": 0.95, "seed": 21},
}
IMPATIENT = Limits(attach_limit_s=0.5, reattach_limit_s=0.5)


@contextlib.asynccontextmanager
async def gateway_program(folder: Path, target: str) -> AsyncGenerator[tuple[Face, asyncio.subprocess.Process]]:
    """Run `mondrian gateway` as a process of its own, and give a client of it."""
    with (folder / "gateway-stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mondrian_server", "gateway", "--target", target, "--http-address", "127.0.0.1:0"),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert line.startswith("The page is at http://127.0.0.1:"), (folder / "gateway-stderr").read_text()
        async with facing(int(line.strip().rstrip("/").rpartition(":")[2])) as face:
            yield face, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_killed_server_is_not_noticed(tmp_path: Path) -> None:
    """After kill -9 and a new start the same responses go on, to a text identical to that of an undisturbed run."""
    port = free_port()
    address = ("--grpc-address", f"127.0.0.1:{port}")
    async with gateway_program(tmp_path, f"127.0.0.1:{port}") as (face, gateway):
        async with program(tmp_path, *address) as first:
            await eventually(face.ready)
            expected = await face.analyze(CONFIG)
            followed, analyzed, watched = Stream(), Stream(), Stream()
            name = await face.create(CONFIG)
            reading = [
                asyncio.create_task(face.read(followed, name)),
                asyncio.create_task(_analyze(face, analyzed)),
            ]
            await eventually(lambda: followed.has_token() and analyzed.has_token(), within_s=30)
            first.process.kill()
            await first.ended()
        # A client that comes while the server is down waits for it.
        reading.append(asyncio.create_task(face.read(watched, name)))
        async with program(tmp_path, *address):
            async with asyncio.timeout(60):
                await asyncio.gather(*reading)
            for stream in (followed, analyzed, watched):
                stream.assert_whole()
                assert stream.statuses == [200], "one response, however often the server is lost"
                assert stream.text == expected.text
                assert (await face.get(stream.name))["text"] == stream.text
            listed = (await face.http.get("/v1/analyses")).json()["analyses"]
            assert len(listed) == 3, "none was made twice"
        gateway.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(gateway.wait(), 10) == 0


async def _analyze(face: Face, stream: Stream) -> None:
    async with face.http.stream("POST", "/v1/analyze", json={"config": CONFIG}) as response:
        await take(response, stream)


async def test_one_analysis_comes_of_one_request(script: ScriptedServer) -> None:
    """A call that is lost before its first event is made again under the same request id."""
    tape = Tape()
    events = [tape.accepted(), tape.token("a"), tape.completed("a")]

    async def lost(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        script.script = playing(*events)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        yield events[0]

    script.script = lost
    async with standing_alone(script.address) as face:
        await face.analyze({"prompt": "x"})
    ids = {request.request_id for request in script.requests}
    assert len(script.requests) == 2
    assert len(ids) == 1
    assert ids != {""}


async def test_a_creation_is_made_again(script: ScriptedServer) -> None:
    """POST /v1/analyses waits for a server that is not there yet, and creates one analysis."""
    await script.stop()
    async with standing_alone(script.address) as face:
        creating = asyncio.create_task(face.create({"prompt": "x"}))
        await asyncio.sleep(0.3)
        await script.start(script.address)
        assert await creating == "analyses/a1"
    assert len({creation.request_id for creation in script.creations}) == 1


async def test_a_stream_that_is_given_up_says_so(script: ScriptedServer) -> None:
    """When the server stays away for the whole limit, the stream ends with `interrupted`, without an id."""
    tape = Tape()
    script.script = playing(tape.accepted(), tape.token("a"), forever=True)
    async with standing_alone(script.address, IMPATIENT) as face:
        stream = Stream()
        async with face.http.stream("POST", "/v1/analyze", json={"config": {"prompt": "x"}}) as response:
            reading = asyncio.create_task(take(response, stream))
            await eventually(stream.has_token)
            await script.stop()
            async with asyncio.timeout(10):
                await reading
        assert [seen.event for seen in stream.events] == ["accepted", "token"]
        (interruption,) = stream.interruptions
        assert interruption["error"]["code"] == grpc.StatusCode.UNAVAILABLE.value[0]
        assert "the server cannot be reached" in interruption["error"]["message"]


async def test_a_stream_whose_analysis_is_lost_says_so(script: ScriptedServer) -> None:
    """What cannot be mended is told at once: the server came back without the analysis."""
    tape = Tape()
    script.script = playing(tape.accepted(), tape.token("a"), forever=True)

    async def gone(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        await abort(context, rich_status(grpc.StatusCode.NOT_FOUND, "none", reason="ANALYSIS_NOT_FOUND"))
        yield tape.unknown()

    script.watch_script = gone
    async with standing_alone(script.address) as face:
        stream = Stream()
        async with face.http.stream("POST", "/v1/analyze", json={"config": {"prompt": "x"}}) as response:
            reading = asyncio.create_task(take(response, stream))
            await eventually(stream.has_token)
            await script.restart()
            async with asyncio.timeout(10):
                await reading
        assert stream.interruptions[0]["error"]["code"] == grpc.StatusCode.NOT_FOUND.value[0]
        assert script.watches[-1].after_sequence == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/analyze"),
        ("POST", "/v1/analyses"),
        ("GET", "/v1/analyses/a1/events"),
        ("GET", "/v1/analyses/a1/events?after=3"),
        ("GET", "/v1/analyses/a1"),
        ("GET", "/v1/analyses"),
        ("DELETE", "/v1/analyses/a1"),
        ("POST", "/v1/analyses/a1:cancel"),
        ("GET", "/v1/advisors"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/x"),
        ("GET", "/readyz"),
    ],
)
async def test_without_a_server_every_route_is_503(method: str, path: str) -> None:
    """Each answers in time with a status, a reason and Retry-After, and tells nothing of addresses."""
    async with standing_alone(f"127.0.0.1:{free_port()}", IMPATIENT) as face:
        body = {"config": {"prompt": "x"}} if method == "POST" else None
        began_s = time.monotonic()
        response = await face.http.request(method, path, json=body)
        assert time.monotonic() - began_s < 5
        status, reason = error_of(response)
        assert status == 503
        assert reason in ("SERVER_UNREACHABLE", "NOT_READY")
        assert int(response.headers["retry-after"]) >= 1
        assert "127.0.0.1" not in response.text


async def test_a_client_of_a_dead_gateway_loses_nothing(tmp_path: Path) -> None:
    """The gateway holds no state: after its own kill -9 another one goes on after the last id."""
    async with program(tmp_path) as server:
        target = f"127.0.0.1:{server.port}"
        stream = Stream()
        async with gateway_program(tmp_path, target) as (face, gateway):
            name = await face.create(CONFIG)
            reading = asyncio.create_task(face.read(stream, name))
            await eventually(stream.has_token)
            gateway.kill()
            with contextlib.suppress(httpx.TransportError):
                await reading
        assert not stream.ended
        async with standing_alone(target) as face:
            await face.read(stream, name)
        stream.assert_whole()
