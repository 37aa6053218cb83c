"""The stream for threads: cancel from anywhere, and a clean Ctrl-C."""

import asyncio
import signal
import sys
import threading

import pytest

import mondrian
from mondrian.v1 import analysis_pb2 as pb
from tests.client.conftest import threaded_client
from tests.client.scripted_server import ScriptedServer, Tape, playing, scripted_server

_FOLLOW = """
import sys, mondrian
with mondrian.Client(sys.argv[1]) as client:
    for event in client.analyze("hi"):
        print(event.sequence, flush=True)
"""


def _endless(server: ScriptedServer) -> None:
    tape = Tape()
    server.script = playing(tape.accepted(), tape.token("The"), tape.token(" picture"), forever=True)


async def test_another_thread_can_cancel(server: ScriptedServer) -> None:
    """A loop that waits in one thread raises AnalysisCancelled when another one cancels."""
    _endless(server)
    async with threaded_client(server.address) as client:
        stream = client.analyze("hi")
        started = threading.Event()

        def follow() -> None:
            for event in stream:
                if event.sequence == 3:
                    started.set()

        following = asyncio.create_task(asyncio.to_thread(follow))
        assert await asyncio.to_thread(started.wait, 5)
        stream.cancel()
        with pytest.raises(mondrian.AnalysisCancelled):
            await following
        assert stream.text == "The picture"
        assert list(stream) == []
    assert await server.ending() == "cancelled"


async def test_break_cancels_at_once(server: ScriptedServer) -> None:
    """Leaving a plain `for` by break cancels the analysis on the server."""
    _endless(server)
    async with threaded_client(server.address) as client:

        def follow() -> None:
            for event in client.analyze("hi"):
                if event.sequence == 3:
                    break

        await asyncio.to_thread(follow)
        assert await server.ending() == "cancelled"


async def test_with_cancels_though_the_stream_is_held(server: ScriptedServer) -> None:
    """`with` cancels when the block is left, whoever still refers to the stream."""
    _endless(server)
    async with threaded_client(server.address) as client:

        def follow() -> mondrian.AnalysisStream:
            with client.analyze("hi") as stream:
                next(stream)
            return stream

        held = await asyncio.to_thread(follow)
        assert await server.ending() == "cancelled"
        assert list(held) == []


async def test_a_cancel_before_the_first_event_raises(server: ScriptedServer) -> None:
    """A stream that was cancelled before it began raises when it is asked."""
    _endless(server)
    async with threaded_client(server.address) as client:
        stream = client.analyze("hi")
        stream.cancel()
        with pytest.raises(mondrian.AnalysisCancelled):
            await asyncio.to_thread(next, stream)


async def test_closing_the_client_ends_its_loops(server: ScriptedServer) -> None:
    """A loop whose client is closed raises AnalysisCancelled."""
    _endless(server)
    client = mondrian.Client(server.address)
    stream = client.analyze("hi")
    await asyncio.to_thread(next, stream)
    following = asyncio.create_task(asyncio.to_thread(list, stream))
    await asyncio.to_thread(client.close)
    with pytest.raises(mondrian.AnalysisCancelled):
        await following
    assert await server.ending() == "cancelled"


async def test_messages_give_the_wire_events(server: ScriptedServer) -> None:
    """`messages()` yields the messages as they were sent."""
    tape = Tape()
    sent = [tape.accepted(), tape.progress(pb.STAGE_PREFILL, "Reading..."), tape.completed("")]
    server.script = playing(*sent)
    async with threaded_client(server.address) as client:
        assert await asyncio.to_thread(lambda: list(client.analyze("hi").messages())) == sent


async def test_ctrl_c_is_a_keyboard_interrupt_that_cancels() -> None:
    """SIGINT while the loop waits raises KeyboardInterrupt at once, and the server sees the cancel."""
    async with scripted_server() as server:
        _endless(server)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _FOLLOW,
            server.address,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while await process.stdout.readline() != b"3\n":
                pass
            process.send_signal(signal.SIGINT)
            assert await server.ending() == "cancelled"
            _, errors = await process.communicate()
        assert errors.decode().splitlines()[-1] == "KeyboardInterrupt"
        assert process.returncode == -signal.SIGINT


async def test_a_slow_reader_loses_nothing_before_an_error(server: ScriptedServer) -> None:
    """Events that wait unread when the call fails are still delivered before the error."""
    tape = Tape()
    server.script = playing(tape.accepted(), *(tape.token(f"{index} ") for index in range(2000)))
    async with threaded_client(server.address) as client:
        stream = client.analyze("hi")
        await asyncio.to_thread(next, stream)
        assert await server.ending() == "finished"
        with pytest.raises(mondrian.InternalError):
            await asyncio.to_thread(list, stream)
        assert stream.text == "".join(f"{index} " for index in range(2000))
