"""Frames: calls over HTTP/2 read as frames and counted, at a fraction of what a gRPC client takes of a core.

As much of RFC 9113 as a caller needs who sends one request a stream and counts what comes: no header is decoded,
windows are as large as they can be, and settings and pings are answered.
"""

import selectors
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE = 4
_LARGEST = 2**31 - 1
_FIRST_WINDOW = 65_535
_FRAME_HEAD, _MESSAGE_HEAD = 9, 5
_READ_BYTES = 1 << 20


@dataclass(slots=True)
class Stream:
    """One call: how many messages and bytes came, and whether it has ended; `ok` is False where it was reset."""

    messages: int = 0
    size: int = 0
    ended: bool = False
    ok: bool = True
    rest: int = 0
    head: bytes = b""

    def take(self, data: memoryview) -> None:
        """Count the messages whose heads lie in these bytes."""
        self.size += len(data)
        at = 0
        while at < len(data):
            if self.rest:
                step = min(self.rest, len(data) - at)
                self.rest -= step
            else:
                step = min(_MESSAGE_HEAD - len(self.head), len(data) - at)
                self.head += bytes(data[at : at + step])
                if len(self.head) == _MESSAGE_HEAD:
                    self.rest = int.from_bytes(self.head[1:], "big")
                    self.messages += 1
                    self.head = b""
            at += step


@dataclass(slots=True)
class Connection:
    """A connection and its streams, by number."""

    address: str
    line: socket.socket = field(init=False)
    streams: dict[int, Stream] = field(default_factory=dict[int, Stream])
    unread: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        """Connect, with windows that never close."""
        host, _, port = self.address.rpartition(":")
        self.line = socket.create_connection((host, int(port)))
        window = struct.pack(">HI", _INITIAL_WINDOW_SIZE, _LARGEST)
        grown = struct.pack(">I", _LARGEST - _FIRST_WINDOW)
        self.line.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, window) + _frame(_WINDOW_UPDATE, 0, 0, grown))

    def call(self, path: str, request: bytes) -> Stream:
        """Begin a call with its one message."""
        number = 2 * len(self.streams) + 1
        stream = self.streams[number] = Stream()
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": self.address,
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = b"".join(_field(name, value) for name, value in headers.items())
        message = struct.pack(">BI", 0, len(request)) + request
        self.line.sendall(_frame(_HEADERS, _END_HEADERS, number, block) + _frame(_DATA, _END_STREAM, number, message))
        return stream

    def read(self) -> None:
        """Take what has come."""
        data = self.line.recv(_READ_BYTES)
        if not data:
            self._end_all()
            return
        self.unread += data
        at, view = 0, memoryview(bytes(self.unread))
        while len(view) - at >= _FRAME_HEAD:
            end = at + _FRAME_HEAD + int.from_bytes(view[at : at + 3], "big")
            if end > len(view):
                break
            number = int.from_bytes(view[at + 5 : at + 9], "big")
            self._frame(view[at + 3], view[at + 4], number, view[at + _FRAME_HEAD : end])
            at = end
        del self.unread[:at]

    def _frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            if kind == _DATA:
                stream.take(payload)
            if kind == _RESET:
                stream.ok = False
            if kind == _RESET or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
                stream.ended = True
        elif kind == _SETTINGS and not flags & _ACK:
            self.line.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.line.sendall(_frame(_PING, _ACK, 0, bytes(payload)))
        elif kind == _GOAWAY:
            self._end_all()

    def _end_all(self) -> None:
        for stream in self.streams.values():
            stream.ok = stream.ok and stream.ended
            stream.ended = True


def arrivals(connections: list[Connection]) -> Iterator[None]:
    """Read whatever comes, and yield after each look, until every stream has ended."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.line, selectors.EVENT_READ, connection)
        while not all(stream.ended for connection in connections for stream in connection.streams.values()):
            for key, _ in selector.select():
                key.data.read()
            yield


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, number) + payload


def _field(name: str, value: str) -> bytes:
    """Return a header field that no table is to remember (RFC 7541, 6.2.2)."""
    return b"\0" + _text(name.encode()) + _text(value.encode())


def _text(text: bytes) -> bytes:
    """Return a string as it is, not compressed (RFC 7541, 5.2); longer ones than this are not needed."""
    assert len(text) < 127
    return bytes([len(text)]) + text
