"""Leaving: an analysis that nobody wants any more is cancelled by name, and a watch leaves it alone."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

import grpc
import pytest
from google.protobuf.message import Message

import mondrian
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.client.conftest import threaded_client
from tests.client.scripted_server import ANALYSIS, Context, ScriptedServer, Tape, abort, playing, rich_status
from tests.conditions import eventually


def _endless(server: ScriptedServer) -> None:
    tape = Tape()
    server.script = server.watch_script = playing(tape.accepted(), tape.token("The"), forever=True)


async def _by_break(client: mondrian.AsyncClient) -> None:
    async for event in client.analyze("hi"):
        if event.sequence == 2:
            break


async def _by_block(client: mondrian.AsyncClient) -> None:
    async with client.analyze("hi") as stream:
        await anext(stream)


async def _by_cancel(client: mondrian.AsyncClient) -> None:
    stream = client.analyze("hi")
    await anext(stream)
    stream.cancel()
    with pytest.raises(mondrian.AnalysisCancelled):
        await anext(stream)


async def _by_cancelled_task(client: mondrian.AsyncClient) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await client.ask("hi")


async def _by_messages(client: mondrian.AsyncClient) -> None:
    messages = client.analyze("hi").messages()
    await anext(messages)
    del messages  # as by a loop that is left


async def _by_closing(client: mondrian.AsyncClient) -> None:
    stream = client.analyze("hi")
    await anext(stream)
    await client.aclose()
    with pytest.raises(mondrian.AnalysisCancelled):
        await anext(stream)


@pytest.mark.parametrize(
    "leave",
    [_by_break, _by_block, _by_cancel, _by_cancelled_task, _by_messages, _by_closing],
    ids=lambda leave: leave.__name__,
)
async def test_leaving_a_loop_cancels_by_name(
    server: ScriptedServer, client: mondrian.AsyncClient, leave: Callable[[mondrian.AsyncClient], Awaitable[None]]
) -> None:
    """The server is told to cancel the analysis, and the call is ended too."""
    _endless(server)
    await leave(client)
    assert await server.cancelled() == ANALYSIS
    assert await server.ending() == "cancelled"
    await client.aclose()
    assert server.cancels.empty()


def _sync_by_break(client: mondrian.Client) -> None:
    for event in client.analyze("hi"):
        if event.sequence == 2:
            break


def _sync_by_block(client: mondrian.Client) -> None:
    with client.analyze("hi") as stream:
        next(stream)


def _sync_by_cancel(client: mondrian.Client) -> None:
    stream = client.analyze("hi")
    next(stream)
    stream.cancel()
    with pytest.raises(mondrian.AnalysisCancelled):
        next(stream)


def _sync_by_messages(client: mondrian.Client) -> None:
    for _ in client.analyze("hi").messages():
        break


def _sync_by_closing(client: mondrian.Client) -> None:
    stream = client.analyze("hi")
    next(stream)
    client.close()
    with pytest.raises(mondrian.AnalysisCancelled):
        next(stream)


@pytest.mark.parametrize(
    "leave",
    [_sync_by_break, _sync_by_block, _sync_by_cancel, _sync_by_messages, _sync_by_closing],
    ids=lambda leave: leave.__name__,
)
async def test_leaving_a_loop_of_a_thread_cancels_by_name(
    server: ScriptedServer, leave: Callable[[mondrian.Client], None]
) -> None:
    """The same for the client for threads."""
    _endless(server)
    async with threaded_client(server.address) as client:
        await asyncio.to_thread(leave, client)
        assert await server.cancelled() == ANALYSIS
        assert await server.ending() == "cancelled"
    assert server.cancels.empty()


@pytest.mark.parametrize("way", ["break", "block", "task", "client"])
async def test_leaving_a_watch_cancels_nothing(server: ScriptedServer, client: mondrian.AsyncClient, way: str) -> None:
    """However a watch is left, only its call ends."""
    _endless(server)
    stream = client.watch(ANALYSIS)
    await anext(stream)
    match way:
        case "break":
            async for _ in stream:
                break
            del stream
        case "block":
            async with stream:
                pass
        case "task":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    async for _ in stream:
                        pass
        case _:
            await client.aclose()
            assert [event async for event in stream] == []
    assert await server.ending() == "watch cancelled"
    await client.aclose()
    assert server.cancels.empty()


async def test_leaving_a_watch_of_a_thread_cancels_nothing(server: ScriptedServer) -> None:
    """The same for the client for threads."""
    _endless(server)
    async with threaded_client(server.address) as client:

        def follow() -> None:
            for _ in client.watch(ANALYSIS):
                break

        await asyncio.to_thread(follow)
        assert await server.ending() == "watch cancelled"
    assert server.cancels.empty()


async def test_a_watch_that_is_closed_elsewhere_just_ends(server: ScriptedServer) -> None:
    """A loop that waits in another thread or task ends without an error when its watch is closed."""
    _endless(server)
    async with threaded_client(server.address) as threaded, mondrian.AsyncClient(server.address) as client:
        for stream in (threaded.watch(ANALYSIS), client.watch(ANALYSIS)):
            following = asyncio.create_task(_listed(stream))
            await eventually(lambda stream=stream: stream.sequence >= 2)
            stream.leave()
            assert [event.sequence for event in await asyncio.wait_for(following, 5)] == [1, 2]
    assert server.cancels.empty()


async def _listed(stream: mondrian.AsyncEventStream | mondrian.EventStream) -> list[mondrian.Event]:
    if isinstance(stream, mondrian.EventStream):
        return await asyncio.to_thread(list, stream)
    return [event async for event in stream]


async def test_an_analysis_that_has_ended_is_not_cancelled(
    server: ScriptedServer, client: mondrian.AsyncClient
) -> None:
    """After the terminal event nothing is left to cancel, whether the loop read on or not."""
    tape = Tape()
    server.script = playing(tape.accepted(), tape.completed(""), forever=True)
    async with client.analyze("hi") as stream:
        async for event in stream:
            if isinstance(event, mondrian.Completed):
                break
    async with threaded_client(server.address) as threaded:
        with threaded.analyze("hi") as events:
            await asyncio.to_thread(lambda: [next(events), next(events)])
    await client.aclose()
    assert server.cancels.empty()


def _naming_late(server: ScriptedServer) -> tuple[asyncio.Event, asyncio.Event]:
    """Return what tells that the server was asked, and what lets it name the analysis."""
    asked, name = asyncio.Event(), asyncio.Event()
    tape = Tape()

    async def script(_request: Message, _context: Context) -> AsyncGenerator[pb.Event]:
        asked.set()
        await name.wait()
        yield tape.accepted()
        await asyncio.Event().wait()

    server.script = script
    return asked, name


@pytest.mark.alone
async def test_an_analysis_without_a_name_yet_is_cancelled_too(
    server: ScriptedServer, client: mondrian.AsyncClient
) -> None:
    """A task that is cancelled before the first event ends at once; the name is waited for in the background."""
    asked, name = _naming_late(server)
    task = asyncio.create_task(client.ask("hi"))
    await asked.wait()
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 0.2
    assert server.cancels.empty()
    name.set()
    assert await server.cancelled() == ANALYSIS


async def test_a_thread_is_told_of_the_name_before_it_leaves(server: ScriptedServer) -> None:
    """A cancel from another thread before the first event cancels by name, and the loop raises."""
    asked, name = _naming_late(server)
    async with threaded_client(server.address) as client:
        stream = client.analyze("hi")
        following = asyncio.create_task(asyncio.to_thread(list, stream))
        await asked.wait()
        stream.close()
        name.set()
        assert await server.cancelled() == ANALYSIS
        with pytest.raises(mondrian.AnalysisCancelled):
            await following


@pytest.mark.alone
async def test_a_silent_server_is_left_to_the_grace(server: ScriptedServer) -> None:
    """Where no name comes, a cancel ends the loop within a second or so."""
    server.script = playing(forever=True)
    async with threaded_client(server.address) as threaded, mondrian.AsyncClient(server.address) as client:
        for stream in (threaded.analyze("hi"), client.analyze("hi")):
            following = asyncio.create_task(_listed(stream))
            await eventually(lambda: server.requests)
            server.requests.clear()
            began = time.monotonic()
            stream.cancel()
            with pytest.raises(mondrian.AnalysisCancelled):
                await following
            assert time.monotonic() - began < 2.0
    assert server.cancels.empty()


def _set(waiting: threading.Event, _error: mondrian.MondrianError, _delay_s: float) -> None:
    waiting.set()


@pytest.mark.alone
async def test_a_cancel_ends_the_wait_for_a_lost_server(server: ScriptedServer) -> None:
    """Between two tries a cancel is heard at once, however long the server asked to wait."""
    ending = rich_status(grpc.StatusCode.UNAVAILABLE, "ending", reason="SHUTTING_DOWN", retry_after_s=60.0)

    async def breaking(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        yield Tape().accepted()
        await abort(context, ending)

    server.script = breaking
    async with threaded_client(server.address) as threaded, mondrian.AsyncClient(server.address) as client:
        for analyze in (threaded.analyze, client.analyze):
            waiting = threading.Event()
            stream = analyze("hi", on_interruption=partial(_set, waiting))
            following = asyncio.create_task(_listed(stream))
            assert await asyncio.to_thread(waiting.wait, 5)
            await server.stop()
            began = time.monotonic()
            stream.cancel()
            with pytest.raises(mondrian.AnalysisCancelled):
                await following
            assert time.monotonic() - began < 0.5
            await server.start(server.address)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_closing_the_client_waits_until_the_server_knows(server: ScriptedServer, kind: str) -> None:
    """After the close, the cancel has been answered, though the server took its time."""
    _endless(server)
    answered: list[str] = []

    class Slow(ScriptedServer):
        async def CancelAnalysis(
            self, request: service_pb.CancelAnalysisRequest, context: Context
        ) -> service_pb.CancelAnalysisResponse:
            await asyncio.sleep(0.4)
            answered.append(request.name)
            return service_pb.CancelAnalysisResponse()

    slow = Slow()
    slow.script = server.script
    await slow.start()
    try:
        if kind == "async":
            async with mondrian.AsyncClient(slow.address) as client:
                await _by_break(client)
        else:
            async with threaded_client(slow.address) as threaded:
                await asyncio.to_thread(_sync_by_break, threaded)
        assert answered == [ANALYSIS]
    finally:
        await slow.stop()


@pytest.mark.alone
async def test_a_server_that_is_gone_does_not_hold_up_the_close(server: ScriptedServer) -> None:
    """Leaving and closing after the server has gone take no more than a moment."""
    _endless(server)
    began = time.monotonic()
    async with mondrian.AsyncClient(server.address) as client, threaded_client(server.address) as threaded:
        stream = client.analyze("hi")
        await anext(stream)
        other = threaded.analyze("hi")
        await asyncio.to_thread(next, other)
        await server.stop()
    assert time.monotonic() - began < 3.0


async def test_a_status_on_the_way_is_no_end_of_a_watch(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """CANCELLED without the event is an error of the loop, so that half an answer is never taken for a whole one."""

    async def script(_request: Message, context: Context) -> AsyncGenerator[pb.Event]:
        yield Tape().accepted()
        await context.abort(grpc.StatusCode.CANCELLED, "by a proxy")

    server.watch_script = script
    with pytest.raises(mondrian.AnalysisCancelled):
        await _listed(client.watch(ANALYSIS, resume_limit_s=None))
