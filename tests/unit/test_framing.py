"""Framing: whole frames or none, over a socket pair, whatever the peer does."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncGenerator

import msgspec
import pytest

from mondrian_server.engine.protocol import Beat, Cancel, FromEngine, ToEngine
from mondrian_server.framing import MAX_FRAME_BYTES, AsyncChannel, BlockingChannel


@contextlib.asynccontextmanager
async def pair() -> AsyncGenerator[tuple[AsyncChannel[FromEngine], socket.socket]]:
    """Return the server's channel, and the child's end as a bare socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        channel = await AsyncChannel[FromEngine].open(ours, FromEngine)
        try:
            yield channel, theirs
        finally:
            await asyncio.wait_for(channel.close(), 5)


async def test_frames_arrive_whole_in_both_directions() -> None:
    """What one side sends, the other receives, frame by frame."""
    async with pair() as (ours, theirs):
        child: BlockingChannel[ToEngine] = BlockingChannel(theirs, ToEngine)
        ours.send(Cancel(row=1))
        ours.send(Cancel(row=2))
        received = [await asyncio.to_thread(child.receive) for _ in range(2)]
        assert received == [Cancel(row=1), Cancel(row=2)]
        beat = Beat(operation="decode", operation_s=0.5, rows_held=3)
        child.send(beat)
        assert await ours.receive() == beat


async def test_a_frame_in_pieces_is_received_once_it_is_whole() -> None:
    """A frame that comes byte by byte is one frame."""
    async with pair() as (ours, theirs):
        body = msgspec.msgpack.encode(Beat(operation="x", operation_s=0.0, rows_held=0))
        receiving = asyncio.create_task(ours.receive())
        for byte in struct.pack("<I", len(body)) + body:
            theirs.sendall(bytes([byte]))
            await asyncio.sleep(0)
        assert isinstance(await receiving, Beat)


async def test_the_end_of_the_peer_is_none_also_inside_a_frame() -> None:
    """A peer that dies, in the middle of a frame too, reads as None."""
    async with pair() as (ours, theirs):
        theirs.sendall(struct.pack("<I", 100) + b"half of it")
        theirs.close()
        assert await ours.receive() is None
        assert await ours.receive() is None
        ours.send(Cancel(row=1))


async def test_a_child_reads_the_end_of_the_server_as_none() -> None:
    """A child whose server is gone receives None."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        assert BlockingChannel[ToEngine](theirs, ToEngine).receive() is None


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(struct.pack("<I", 5) + b"\xc1\xc1\xc1\xc1\xc1", id="no msgpack"),
        pytest.param(struct.pack("<I", 1) + b"\x80", id="no type"),
        pytest.param(struct.pack("<I", MAX_FRAME_BYTES + 1), id="too long"),
        pytest.param(b"Traceback (most recent call last):", id="text"),
    ],
)
async def test_what_is_no_frame_is_an_error_at_once(garbage: bytes) -> None:
    """Garbage is told at once, instead of waiting for gigabytes of it."""
    async with pair() as (ours, theirs):
        theirs.sendall(garbage)
        with pytest.raises(msgspec.MsgspecError):
            await asyncio.wait_for(ours.receive(), 5)


async def test_closing_does_not_wait_for_a_peer_that_reads_nothing() -> None:
    """Megabytes that a stopped peer has not taken do not hold up the end."""
    async with pair() as (ours, _):
        ours.send(Beat(operation="x" * 8_000_000, operation_s=0.0, rows_held=0))
        await asyncio.wait_for(ours.close(), 5)


async def test_sending_waits_for_a_slow_server_only_in_the_child() -> None:
    """The server queues what a child has not read; the child's own send waits until the server reads."""
    async with pair() as (ours, theirs):
        child: BlockingChannel[ToEngine] = BlockingChannel(theirs, ToEngine)
        big = Beat(operation="x" * 4_000_000, operation_s=0.0, rows_held=0)
        sender = threading.Thread(target=child.send, args=(big,), daemon=True)
        sender.start()
        ours.send(big)
        assert await ours.receive() == big
        await asyncio.to_thread(sender.join, 5)
        assert not sender.is_alive()
