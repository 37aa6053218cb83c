"""The asyncio stream: typed events in, and a way out that always cancels."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import assert_never

import grpc
import pytest

import mondrian
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1.analysis_service_pb2 import AnalyzeRequest
from tests.client.scripted_server import ANALYSIS, Context, ScriptedServer, Tape, abort, playing, rich_status
from tests.conditions import eventually


def _endless(server: ScriptedServer) -> None:
    tape = Tape()
    server.script = playing(tape.accepted(), tape.token("The"), tape.token(" picture"), forever=True)


def _label(event: mondrian.Event) -> str:
    # `assert_never` holds only while the match is complete: `make check` proves it.
    match event:
        case mondrian.Accepted():
            return "accepted"
        case mondrian.Progress():
            return "progress"
        case mondrian.Token():
            return "token"
        case mondrian.Completed():
            return "completed"
        case _:
            assert_never(event)


async def test_a_match_over_the_events_is_complete(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """The four event classes are all that a loop meets."""
    tape = Tape()
    server.script = playing(
        tape.accepted(), tape.progress(pb.STAGE_QUEUED, "Waiting..."), tape.token("a"), tape.completed("a")
    )
    assert [_label(event) async for event in client.analyze("hi")] == ["accepted", "progress", "token", "completed"]


async def test_break_cancels_at_once(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """Leaving a plain `async for` by break cancels the analysis on the server."""
    _endless(server)
    async for event in client.analyze("hi"):
        if isinstance(event, mondrian.Token):
            break
    assert await server.ending() == "cancelled"


async def test_an_exception_in_the_loop_cancels_at_once(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """Leaving the loop by an exception cancels the analysis on the server, while the exception is still held."""
    _endless(server)
    with pytest.raises(ZeroDivisionError) as held:
        async for _ in client.analyze("hi"):
            _ = 1 / 0
    assert await server.ending() == "cancelled"
    assert held.value


async def test_async_with_cancels_though_the_stream_is_held(
    server: ScriptedServer, client: mondrian.AsyncClient
) -> None:
    """`async with` cancels when the block is left, whoever still refers to the stream."""
    _endless(server)
    async with client.analyze("hi") as stream:
        async for _ in stream:
            break
    assert await server.ending() == "cancelled"
    assert [event async for event in stream] == []


async def test_cancelling_the_task_cancels_the_analysis(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """A cancelled task ends with CancelledError, and its analysis on the server."""
    _endless(server)
    two_tokens = asyncio.Event()

    async def follow() -> None:
        async for event in client.analyze("hi"):
            if event.sequence == 3:
                two_tokens.set()

    task = asyncio.create_task(follow())
    await two_tokens.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.ending() == "cancelled"


@pytest.mark.alone
async def test_a_timeout_around_the_loop_is_a_timeout(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """`asyncio.timeout` around a loop raises TimeoutError, as around any other await."""
    _endless(server)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            async for _ in client.analyze("hi"):
                pass
    assert await server.ending() == "cancelled"


@pytest.mark.parametrize("leave", ["cancel", "aclose", "client"])
async def test_a_cancel_from_another_task_raises_in_the_loop(
    server: ScriptedServer, client: mondrian.AsyncClient, leave: str
) -> None:
    """The waiting loop raises AnalysisCancelled, whoever cancels: the stream, its end or the client's."""
    _endless(server)
    stream = client.analyze("hi")
    started = asyncio.Event()

    async def follow() -> None:
        async for event in stream:
            if event.sequence == 3:
                started.set()

    task = asyncio.create_task(follow())
    await started.wait()
    match leave:
        case "cancel":
            stream.cancel()
        case "aclose":
            await stream.aclose()
        case _:
            await client.aclose()
    with pytest.raises(mondrian.AnalysisCancelled) as caught:
        await task
    assert caught.value.analysis == ANALYSIS
    assert stream.text == "The picture"
    assert await server.ending() == "cancelled"


async def test_a_cancel_before_the_first_event_sends_nothing(
    server: ScriptedServer, client: mondrian.AsyncClient
) -> None:
    """A stream that was cancelled before it began raises, and the server never hears of it."""
    _endless(server)
    stream = client.analyze("hi")
    stream.cancel()
    with pytest.raises(mondrian.AnalysisCancelled):
        await anext(stream)
    assert server.requests == []


async def test_ask_is_cancelled_with_its_task(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """Cancelling a task that waits in `ask` cancels the analysis."""
    _endless(server)
    seen = asyncio.Event()

    async def follow() -> None:
        await client.ask("hi", on_progress=lambda _: seen.set())

    tape = Tape()
    server.script = playing(tape.accepted(), tape.progress(pb.STAGE_PREFILL, "Reading..."), forever=True)
    task = asyncio.create_task(follow())
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.ending() == "cancelled"


async def test_a_slow_reader_loses_nothing_before_an_error(
    server: ScriptedServer, client: mondrian.AsyncClient
) -> None:
    """Events that wait unread when the call fails are still delivered before the error."""
    tape = Tape()
    events = [tape.accepted(), *(tape.token(f"{index} ") for index in range(2000))]
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "gone", reason="ENGINE_UNAVAILABLE")

    async def script(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        for event in events:
            yield event
        await abort(context, status)

    server.script = script
    stream = client.analyze("hi", resume_limit_s=None)
    await anext(stream)
    await server.ending()
    await asyncio.sleep(0.2)  # let everything arrive before the next read
    with pytest.raises(mondrian.EngineUnavailable):
        async for _ in stream:
            pass
    assert stream.text == "".join(f"{index} " for index in range(2000))


async def test_a_lost_connection_raises_connection_failed(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """Without resuming, a server that vanishes ends the loop with ConnectionFailed and the text so far."""
    _endless(server)
    stream = client.analyze("hi", resume_limit_s=None)
    with pytest.raises(mondrian.ConnectionFailed, match=r"connection to 127\.0\.0\.1:\d+ was lost") as caught:
        async for event in stream:
            if event.sequence == 3:
                await server.stop()
    assert stream.text == "The picture"
    assert caught.value.analysis == ANALYSIS


async def test_messages_give_the_wire_events_and_the_error(
    server: ScriptedServer, client: mondrian.AsyncClient
) -> None:
    """`messages()` yields `failed` itself before it raises."""
    tape = Tape()
    status = rich_status(grpc.StatusCode.INTERNAL, "NaN", reason="GENERATION_FAILED")
    sent = [tape.accepted(), tape.failed(status)]
    server.script = playing(*sent)
    seen: list[pb.Event] = []
    with pytest.raises(mondrian.GenerationFailed):
        async for message in client.analyze("hi").messages():
            seen.append(message)  # noqa: PERF401 - what came before the error counts
    assert seen == sent


async def test_events_are_values(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """Events compare by value, cannot be changed, and carry times in UTC."""
    tape = Tape()
    server.script = playing(tape.accepted(), tape.completed(""))
    first = await anext(client.analyze("hi"))
    assert first == mondrian.Accepted(
        sequence=1,
        analysis=ANALYSIS,
        create_time=datetime.fromtimestamp(1_800_000_001, UTC),
        model="models/mondrian-tiny",
    )
    with pytest.raises(AttributeError):
        setattr(first, "sequence", 2)  # noqa: B010 - the checker knows that it is frozen
    assert not hasattr(first, "__dict__")


async def test_many_streams_share_a_client(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """Concurrent analyses over one connection do not mix."""

    async def echo(request: AnalyzeRequest, _context: Context) -> AsyncGenerator[pb.Event]:
        tape = Tape()
        prompt = request.config.prompt
        yield tape.accepted()
        yield tape.token(prompt)
        yield tape.completed(prompt)

    server.script = echo
    prompts = [f"prompt {index}" for index in range(200)]
    results = await asyncio.gather(*(client.ask(prompt) for prompt in prompts))
    assert [result.text for result in results] == prompts


async def test_many_abandoned_loops_leave_nothing_behind(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """A hundred loops left at the first event end a hundred calls, and no task of theirs lives on."""
    _endless(server)
    tasks_before = len(asyncio.all_tasks())
    for _ in range(100):
        async for _event in client.analyze("hi"):
            break
    assert [await server.ending() for _ in range(100)] == ["cancelled"] * 100
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks_before, within_s=5.0)
