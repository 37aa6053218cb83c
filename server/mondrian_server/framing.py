"""Framing: length-prefixed, typed messages over a socket pair between the server and its child processes."""

import asyncio
import contextlib
import socket
import struct
from typing import Any, Generic, TypeVar

import msgspec

Incoming = TypeVar("Incoming")
_LENGTH = struct.Struct("<I")

MAX_FRAME_BYTES = 1 << 30
"""More than any frame has. A longer one is a peer that no longer speaks the protocol."""


class Codec(Generic[Incoming]):
    """Encodes any frame and decodes frames of one union of types. Not safe for use by two threads at once."""

    def __init__(self, incoming: Any):
        """Decode frames of the type (or union) `incoming`."""
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Incoming] = msgspec.msgpack.Decoder(incoming)

    def encode(self, frame: msgspec.Struct) -> bytes:
        """Return the frame with its length before it (4 bytes, little-endian)."""
        buffer = bytearray(_LENGTH.size)
        self._encoder.encode_into(frame, buffer, _LENGTH.size)
        _LENGTH.pack_into(buffer, 0, len(buffer) - _LENGTH.size)
        return bytes(buffer)

    def decode(self, body: bytes | bytearray | memoryview) -> Incoming:
        """Return the frame of `body`; raises `msgspec.MsgspecError` where it is of no known type."""
        return self._decoder.decode(body)


class AsyncChannel(Generic[Incoming]):
    """The server's end of a socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, codec: Codec[Incoming]):
        """Wrap an open stream."""
        self._reader = reader
        self._writer = writer
        self._codec = codec

    @classmethod
    async def open(cls, end: socket.socket, incoming: Any) -> "AsyncChannel[Incoming]":
        """Take over `end` and decode frames of the union `incoming` from it."""
        reader, writer = await asyncio.open_connection(sock=end)
        return cls(reader, writer, Codec(incoming))

    def send(self, frame: msgspec.Struct) -> None:
        """Queue a frame; never blocks. A frame to a peer that is gone is dropped: its end shows in `receive`."""
        if not self._writer.is_closing():
            self._writer.write(self._codec.encode(frame))

    async def receive(self) -> Incoming | None:
        """Return the next frame, or None when the peer is gone; raises `msgspec.MsgspecError` for what is no frame."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > MAX_FRAME_BYTES:
                raise msgspec.DecodeError(f"a frame of {length:,} bytes; at most {MAX_FRAME_BYTES:,} are read")
            return self._codec.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def close(self) -> None:
        """Close the stream, whatever its state. What the peer has not taken is dropped: it may never read again."""
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):  # The peer went first: closed is closed.
            await self._writer.wait_closed()


class BlockingChannel(Generic[Incoming]):
    """A child's end of the socket pair. `send` is safe from several threads only under the caller's lock."""

    def __init__(self, end: socket.socket, incoming: Any):
        """Wrap a connected socket and decode frames of the union `incoming` from it."""
        end.setblocking(True)
        self._socket = end
        self._codec: Codec[Incoming] = Codec(incoming)
        self._encoder: Codec[Incoming] = Codec(incoming)

    def send(self, frame: msgspec.Struct) -> None:
        """Write a frame, waiting while the peer's buffer is full."""
        self._socket.sendall(self._encoder.encode(frame))

    def receive(self) -> Incoming | None:
        """Return the next frame, or None when the peer is gone."""
        header = self._read(_LENGTH.size)
        if header is None:
            return None
        body = self._read(_LENGTH.unpack(header)[0])
        return None if body is None else self._codec.decode(body)

    def _read(self, count: int) -> bytearray | None:
        buffer = bytearray(count)
        view = memoryview(buffer)
        while view:
            try:
                got = self._socket.recv_into(view)
            except ConnectionError:
                return None
            if not got:
                return None
            view = view[got:]
        return buffer
