"""Pressure: a full queue, an engine that is down, bodies that are too large, and clients that are too slow."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio

from mondrian.v1 import analysis_pb2 as pb
from mondrian_server.gateway.options import MEBIBYTE, Limits
from tests.client.scripted_server import ANALYSIS, ScriptedServer, Tape, playing
from tests.conditions import eventually
from tests.gateway.face import Face, Stream, connected, error_of, facing, standing_alone
from tests.scripted_engine import Fault, Life, command
from tests.service.calls import settings_for, started

QUICK = Limits(head_limit_s=0.5, body_idle_s=0.5, body_limit_s=1.5, max_bodies_bytes=8 * MEBIBYTE)


POST_HEAD = b"POST /v1/analyses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest_asyncio.fixture
async def alone(script: ScriptedServer) -> AsyncGenerator[Face]:
    """A gateway over a scripted server, with short limits."""
    async with standing_alone(script.address, QUICK) as face:
        yield face


async def test_a_full_queue(tmp_path: Path) -> None:
    """With as many waiting as may, the next is 429 with Retry-After, on every route that creates."""
    settings = settings_for(tmp_path, http_address="127.0.0.1:0", slots=1, lookahead=0, max_waiting_analyses=1)
    engine = command([Life(tokens=100_000)], tmp_path / "starts")
    async with started(settings, engine_command=engine) as up:
        assert up.service.gateway is not None
        async with facing(up.service.gateway.port) as face:
            first = await face.create({"prompt": "x"})
            await face.read(stream := Stream(), first, until=stream.has_token)
            await face.create({"prompt": "x"})
            for path in ("/v1/analyses", "/v1/analyze"):
                response = await face.http.post(path, json={"config": {"prompt": "x"}})
                assert error_of(response) == (429, "TOO_MANY_ANALYSES")
                assert int(response.headers["retry-after"]) >= 1


async def test_an_engine_that_is_down(tmp_path: Path) -> None:
    """While the engine cannot be started, what would be created is 503 with Retry-After; the rest is answered."""
    lives = [Life(fault=Fault(what="exit", at="load"))]
    settings = settings_for(tmp_path, http_address="127.0.0.1:0", engine_restart_backoff_max_s=0.5)
    async with started(settings, engine_command=command(lives, tmp_path / "starts"), ready=False) as up:
        assert up.service.gateway is not None
        await eventually(lambda: up.service.engine.status.failures >= 3)
        async with facing(up.service.gateway.port) as face:
            for path in ("/v1/analyses", "/v1/analyze"):
                response = await face.http.post(path, json={"config": {"prompt": "x"}})
                assert error_of(response) == (503, "ENGINE_UNAVAILABLE")
                assert int(response.headers["retry-after"]) >= 1
            assert error_of(await face.http.get("/readyz")) == (503, "NOT_READY")
            assert (await face.http.get("/v1/analyses")).status_code == 200
            assert (await face.http.get("/healthz")).status_code == 200


async def endless(piece: bytes, sent: list[int], *, most: int) -> AsyncIterator[bytes]:
    """Send a piece again and again, and count."""
    while sent[0] < most:
        sent[0] += len(piece)
        yield piece


HEAD = b'--edge\r\nContent-Disposition: form-data; name="image"\r\n\r\n'


@pytest.mark.parametrize(
    ("content_type", "head", "limit"),
    [("multipart/form-data; boundary=edge", HEAD, 25), ("application/json", b'{"config": {"prompt": "', 33)],
    ids=["form", "json"],
)
async def test_a_body_that_is_too_large_is_refused_while_it_is_read(
    script: ScriptedServer, content_type: str, head: bytes, limit: int
) -> None:
    """413 comes when the limit is passed, not at the end of a body of 400 MiB, and memory stays flat."""
    async with standing_alone(script.address) as face:
        before = psutil.Process().memory_info().rss

        async def body(sent: list[int]) -> AsyncIterator[bytes]:
            yield head
            async for piece in endless(b"x" * 65536, sent, most=400 * MEBIBYTE):
                yield piece

        async def send() -> tuple[int, str]:
            sent = [0]
            response = await face.http.post("/v1/analyses", content=body(sent), headers={"Content-Type": content_type})
            return error_of(response)

        began_s = time.monotonic()
        assert await send() == (413, "REQUEST_TOO_LARGE")
        assert time.monotonic() - began_s < 30
        grown = psutil.Process().memory_info().rss - before
        assert grown < (2 * limit + 30) * MEBIBYTE, f"{grown / MEBIBYTE:.0f} MiB"
        assert not script.creations


async def test_a_body_that_says_that_it_is_too_large_is_not_read(face: Face) -> None:
    """A Content-Length beyond the limit is refused before a byte of the body is taken."""
    async with connected(face) as (reader, writer), asyncio.timeout(5):
        writer.write(POST_HEAD + b"Content-Length: 99999999999\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")


async def test_a_body_of_the_largest_size_is_taken(face: Face) -> None:
    """What is within the limits reaches the service, which has limits of its own: 24 MiB of images pass."""
    image = os.urandom(12 * MEBIBYTE)
    files = [("image", ("a", image)), ("image", ("b", image))]
    response = await face.http.post("/v1/analyses", files=files, data={"prompt": "x"})
    assert response.status_code == 201, response.text


async def test_too_many_bodies_at_once(alone: Face) -> None:
    """Bodies that are being read together may take so much memory; the one that is too much is 503, Retry-After."""
    waiting = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * (5 * MEBIBYTE)
        await asyncio.sleep(0.3)
        waiting.set()
        yield b"x"

    async def send() -> httpx.Response:
        return await alone.http.post("/v1/analyses", content=slow(), headers={"Content-Type": "application/json"})

    answers = await asyncio.gather(send(), send())
    statuses = sorted(error_of(answer) for answer in answers)
    assert statuses == [(400, "INVALID_REQUEST"), (503, "TOO_MANY_UPLOADS")]
    assert (await send()).status_code == 400, "the memory is given back"


@pytest.mark.parametrize(
    ("keys_needed", "answer"), [(True, (503, "TOO_MANY_UPLOADS")), (False, (400, "INVALID_REQUEST"))]
)
async def test_the_bodies_of_one_key_leave_half_of_the_memory_to_others(
    script: ScriptedServer, keys_needed: bool, answer: tuple[int, str]
) -> None:
    """Where the server has keys, one alone may hold half; where it has none, everybody is one and may hold all."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer ann"}
    async with standing_alone(script.address, QUICK, keys_needed=keys_needed) as face:
        response = await face.http.post("/v1/analyses", content=b"x" * (5 * MEBIBYTE), headers=headers)
        assert error_of(response) == answer


@pytest.mark.parametrize("pause_s", [60.0, 0.1], ids=["still", "slow"])
async def test_a_body_that_does_not_come(alone: Face, pause_s: float) -> None:
    """A body that stands still is 408, and so is one that comes too slowly; then the connection is closed."""
    async with connected(alone) as (reader, writer), asyncio.timeout(10):
        writer.write(POST_HEAD + b"Content-Length: 1000\r\n\r\n")
        answer = await read_while_writing(reader, writer, b" ", pause_s)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"REQUEST_TIMEOUT" in answer


@pytest.mark.parametrize("start", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: "])
async def test_a_head_that_never_ends(alone: Face, start: bytes) -> None:
    """A connection whose request does not come, or comes a byte at a time, is closed."""
    async with connected(alone) as (reader, writer), asyncio.timeout(10):
        writer.write(start)
        assert await read_while_writing(reader, writer, b"a" if start else b"", 0.05) == b""


async def read_while_writing(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes, pause_s: float
) -> bytes:
    """Read until the other side closes the connection, and write a piece again and again meanwhile."""

    async def trickle() -> None:
        while True:
            writer.write(piece)
            await asyncio.sleep(pause_s)

    trickling = asyncio.create_task(trickle())
    try:
        return await read_to_the_close(reader)
    finally:
        trickling.cancel()


async def read_to_the_close(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the other side closes the connection, which answers bytes that cross it by a reset."""
    read = bytearray()
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(MEBIBYTE):
            read += block
    return bytes(read)


@pytest.mark.parametrize("line", [b"a" * MEBIBYTE, b"a: b\r\n" * 200_000], ids=["long", "many"])
async def test_a_head_that_is_too_large(alone: Face, line: bytes) -> None:
    """A head of a MiB, in one header or in many, is refused before it has come whole, and the rest goes on."""
    async with connected(alone) as (reader, writer), asyncio.timeout(10):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: " + line)
        answer = await read_to_the_close(reader)
        # What has not been read when the connection is closed may take the answer with it.
        assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert (await alone.http.get("/healthz")).status_code == 200


async def test_a_client_that_stops_reading_is_let_go(script: ScriptedServer) -> None:
    """A client that takes nothing for as long as the limit is closed, and its call with it."""
    tape = Tape()
    script.watch_script = playing(*(tape.token("x" * 100_000) for _ in range(400)), forever=True)
    async with (
        standing_alone(script.address, Limits(max_connections=1, send_limit_s=0.5)) as face,
        connected(face) as (reader, writer),
    ):
        writer.write(b"GET /v1/analyses/a1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert await script.ending() == "watch cancelled"
        await eventually(lambda: answers(face))


async def test_too_many_connections(script: ScriptedServer) -> None:
    """Beyond the most, idle ones included, requests are 503 with Retry-After; health is told all the same."""
    async with standing_alone(script.address, Limits(max_connections=2)) as face:
        port = httpx.URL(face.url).port
        assert port is not None
        async with idle(face), idle(face):
            refused = await face.http.get("/v1/models")
            assert error_of(refused) == (503, "TOO_MANY_CONNECTIONS")
            assert (refused.headers["retry-after"], refused.headers["connection"]) == ("2", "close")
            async with facing(port) as probe:
                assert (await probe.http.get("/healthz")).status_code == 200
        async with facing(port) as later:
            await eventually(lambda: answers(later))


async def test_a_client_that_takes_no_answer_is_let_go(script: ScriptedServer) -> None:
    """An answer of which nothing is taken for as long as the limit is dropped, and its connection with it."""
    script.analyses[ANALYSIS] = pb.Analysis(name=ANALYSIS, text="x" * (24 * MEBIBYTE))
    async with (
        standing_alone(script.address, Limits(max_connections=1, send_limit_s=0.5)) as face,
        connected(face) as (
            reader,
            writer,
        ),
    ):
        writer.write(b"GET /v1/analyses/a1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await eventually(lambda: answers(face))
        assert not reader.at_eof(), "what came before is still to be read"


@contextlib.asynccontextmanager
async def idle(face: Face) -> AsyncGenerator[None]:
    """Hold a connection that has been used and may be again."""
    async with connected(face) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"alive")
        yield


async def answers(face: Face) -> bool:
    """Ask whether the API answers."""
    return (await face.http.get("/v1/models")).status_code == 200


async def test_small_values_without_end(script: ScriptedServer) -> None:
    """JSON that would take many times its size in memory is refused before it is taken apart."""
    async with standing_alone(script.address) as face:
        for body in (b"[" + b"{}," * 7_000_000 + b"{}]", b'{"config": {"images": [' + b"0," * 10_000_000 + b"0]}}"):
            response = await face.http.post("/v1/analyses", content=body, headers={"Content-Type": "application/json"})
            assert error_of(response) == (400, "INVALID_REQUEST")
            assert "too many values" in response.text
