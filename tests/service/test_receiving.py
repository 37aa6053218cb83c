"""Receiving: requests that do not come, or come slowly, end by a limit and hold up nobody, over real sockets."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import grpc
import psutil

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.callers import CallerLimits
from tests.conditions import eventually
from tests.service.calls import ANALYZE, Connection, Outcome, settings_for, started
from tests.service.files import png
from tests.service.programs import program
from tests.service.test_caller_limits import house

SHORT = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=2))
MEBIBYTE = 1024 * 1024
PROMPTLY_S = 10.0
FRAME_DATA, FRAME_HEADERS, FRAME_SETTINGS = 0, 1, 4
END_HEADERS = 4


def half_open(up: Connection) -> "grpc.aio.StreamStreamCall[Any, Any]":
    """Begin a call whose message does not come."""
    call: grpc.aio.StreamStreamMultiCallable[Any, Any] = up.channel.stream_stream(ANALYZE)
    return call(metadata=up.metadata)


async def test_a_call_that_sends_nothing_is_ended(tmp_path: Path) -> None:
    """It is told so by DEADLINE_EXCEEDED with a reason, and holds nothing afterwards."""
    async with started(settings_for(tmp_path, receive_limit_s=0.5, max_receiving_requests=1)) as up:
        call = half_open(up)
        async with asyncio.timeout(PROMPTLY_S):
            try:
                await call.read()
                raise AssertionError("the call goes on")
            except grpc.aio.AioRpcError as error:
                outcome = Outcome(error=error)
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert "0.5 s" in outcome.message
        assert (await up.ask(SHORT)).completed
        assert up.held == (0, 0, 0, 0)


async def test_a_request_that_comes_byte_by_byte_is_ended(tmp_path: Path) -> None:
    """The limit counts to the end of the message, however lively its sender is; others are served meanwhile."""
    async with started(settings_for(tmp_path, receive_limit_s=1.0, max_receiving_requests=2)) as up:
        reader, writer = await asyncio.open_connection("127.0.0.1", up.service.port)
        drip = asyncio.create_task(_send_slowly(writer))
        try:
            assert (await up.ask(SHORT)).completed
            async with asyncio.timeout(PROMPTLY_S):
                answer = b""
                while b"had not come whole" not in answer:
                    more = await reader.read(4096)
                    assert more, f"the connection ended: {answer!r}"
                    answer += more
            half = half_open(up)
            assert (await up.ask(SHORT)).completed, "its place is free, although it goes on sending"
            half.cancel()
        finally:
            drip.cancel()
            await asyncio.wait((drip,))
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_half_open_calls_hold_up_only_their_own_caller(tmp_path: Path) -> None:
    """Bob's half of the places is taken by calls that send nothing: Carol is served, and Bob once he lets go."""
    async with house(tmp_path, CallerLimits(), max_receiving_requests=2, receive_limit_s=60) as (up, bob, carol):
        calls = [half_open(bob) for _ in range(3)]
        bobs = asyncio.create_task(bob.ask(SHORT))
        assert (await carol.ask(SHORT)).completed
        listing = up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(), metadata=bob.metadata)
        assert not (await listing).analyses, "other methods have places of their own"
        assert not bobs.done()
        for call in calls:
            call.cancel()
        assert (await asyncio.wait_for(bobs, PROMPTLY_S)).completed
        await eventually(lambda: up.held == (0, 0, 0, 0))


async def test_what_waits_to_be_received_stays_with_its_caller(tmp_path: Path) -> None:
    """Twelve requests of 16 MiB without a place make the server hardly larger, and are answered once there is one."""
    config = pb.AnalysisConfig(images=[pb.Image(data=png(8, 8, size_bytes=16 * MEBIBYTE))], sampling=SHORT.sampling)
    options = [("grpc.max_send_message_length", -1)]
    async with (
        program(tmp_path, "--max-receiving-requests", "1") as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel,
    ):
        up = Connection(channel=channel)
        assert (await up.ask(SHORT)).completed
        process = psutil.Process(server.process.pid)
        first = half_open(up)
        before = process.memory_info().rss
        calls = [up.call(config) for _ in range(12)]
        most = 0
        for _ in range(20):  # What gRPC takes in ahead, it takes in at once.
            await asyncio.sleep(0.1)
            most = max(most, process.memory_info().rss - before)
        assert most < 20 * MEBIBYTE
        assert not any(call.sequence or call.ended for call in calls)
        first.cancel()
        for call in calls:
            assert (await call.outcome()).completed


async def _send_slowly(writer: asyncio.StreamWriter) -> None:
    """Begin an Analyze by hand, and send a byte of its message each tenth of a second."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": ANALYZE,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # Literal fields that nobody is to index: the plainest form of HPACK (RFC 7541, 6.2.2).
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers.items())
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(FRAME_SETTINGS, 0, 0, b""))
    writer.write(_frame(FRAME_HEADERS, END_HEADERS, 1, block))
    writer.write(_frame(FRAME_DATA, 0, 1, b"\x00" + (1000).to_bytes(4, "big")))
    while True:
        writer.write(_frame(FRAME_DATA, 0, 1, b"\x0a"))
        await writer.drain()
        await asyncio.sleep(0.1)


def _text(text: str) -> bytes:
    return len(text).to_bytes(1, "big") + text.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
