"""A scripted gateway: answers each HTTP request with the bytes that a test has laid out, cut as the test says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WEB = Path(__file__).parents[2] / "clients" / "web"
PAUSE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer.

    pieces: what is sent after the head, each piece apart from the others.
    breaks: break the connection after the last piece, instead of ending it.
    holds: leave the connection open after the last piece.
    drops: break the connection before the head.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    pieces: Sequence[bytes] = ()
    breaks: bool = False
    holds: bool = False
    drops: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def stream(*pieces: bytes, breaks: bool = False, holds: bool = False) -> Answer:
    """Return an event stream."""
    return Answer(headers={"Content-Type": "text/event-stream"}, pieces=pieces, breaks=breaks, holds=holds)


def as_json(value: object, status: int = 200, **headers: str) -> Answer:
    """Return an answer of JSON; an underscore in the name of a header is a hyphen."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(
        status=status,
        headers={"Content-Type": "application/json", **named},
        pieces=(json.dumps(value).encode(),),
    )


def event(sequence: int, **payload: Any) -> bytes:
    """Return one event of `analyses/a`, as the gateway writes it."""
    (kind,) = payload
    data = {"sequence": sequence, "analysis": "analyses/a", "createTime": "2026-11-20T12:00:00.5Z", **payload}
    return f"id: {sequence}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


class ScriptedGateway:
    """Gives its answers in their order, whatever is asked for; files of the client are served beside them."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        """Begin with the first answer."""
        self._answers = list(answers)
        self.asked: list[Asked] = []
        self.address = ""

    @property
    def left(self) -> int:
        """How many answers nobody has asked for."""
        return len(self._answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the connection is not used again."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._respond(await _read(reader), reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _respond(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = _file(asked.path)
        if answer is None:
            self.asked.append(asked)
            answer = self._answers.pop(0) if self._answers else Answer(status=500)
        if answer.drops:
            writer.transport.abort()
            return
        head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        writer.write(f"HTTP/1.1 {answer.status} Scripted\r\n{head}Connection: close\r\n\r\n".encode())
        for piece in answer.pieces:
            writer.write(piece)
            await writer.drain()
            # A piece shall arrive by itself: nothing waits for this, and a browser that joins two loses only sharpness.
            await asyncio.sleep(PAUSE_S)
        if answer.breaks:
            writer.transport.abort()
        elif answer.holds:
            await reader.read()


@contextlib.asynccontextmanager
async def scripted_gateway(*answers: Answer) -> AsyncGenerator[ScriptedGateway]:
    """Run a gateway that gives these answers."""
    gateway = ScriptedGateway(answers)
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    gateway.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield gateway
    finally:
        server.close()


def _file(path: str) -> Answer | None:
    """Return the client's own file, or an empty page to load it into."""
    if path == "/":
        return Answer(headers={"Content-Type": "text/html"}, pieces=(b"<!doctype html><title>empty</title>",))
    if path == "/favicon.ico":
        return Answer(status=404)
    if path == "/mondrian.js":
        return Answer(headers={"Content-Type": "text/javascript"}, pieces=((WEB / "mondrian.js").read_bytes(),))
    return None


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method=method, path=path, headers=headers, body=body)
