"""Bodies: what a request carries, read as it comes and under limits of size, time and memory."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator

from google.rpc.code_pb2 import Code
from starlette.requests import ClientDisconnect, Request

from mondrian_server.gateway.options import MEBIBYTE, Limits
from mondrian_server.gateway.refusals import Refusal, invalid, refusal, too_large

_BUSY_RETRY_S = 1.0


class Intake:
    """Lets bodies in, and knows how much memory those that are being read take together.

    Where the server has keys, each may hold as much as it leaves free: one alone half of it, two a third each. So who
    uploads slowly keeps nobody else from it.
    """

    def __init__(self, limits: Limits, *, shared: bool) -> None:
        """Begin with nothing; `shared`: whether there may be several callers, told by their keys."""
        self._limits = limits
        self._shared = shared
        self._held_bytes: Counter[str] = Counter()

    @contextlib.contextmanager
    def open(self, request: Request, limit_bytes: int) -> Generator["Body"]:
        """Give the body of a request, whose memory counts until the end of the block."""
        key = request.headers.get("authorization", "") if self._shared else ""
        body = Body(request, limit_bytes, self._limits, lambda size_bytes: self._take(key, size_bytes))
        try:
            yield body
        finally:
            self._held_bytes[key] -= body.read_bytes
            if not self._held_bytes[key]:
                del self._held_bytes[key]

    def _take(self, key: str, size_bytes: int) -> None:
        """Count bytes that have come; raises Refusal where they become too much."""
        self._held_bytes[key] += size_bytes
        free_bytes = self._limits.max_bodies_bytes - self._held_bytes.total()
        if free_bytes < (self._held_bytes[key] if self._shared else 0):
            message = "too many uploads at once"
            raise refusal(503, Code.UNAVAILABLE, "TOO_MANY_UPLOADS", message, retry_s=_BUSY_RETRY_S)


class Body:
    """One body. It is iterated once, in pieces as they come."""

    def __init__(self, request: Request, limit_bytes: int, limits: Limits, take: Callable[[int], None]) -> None:
        """Prepare to read; `Intake.open` does it for you."""
        self._request = request
        self._limit_bytes = limit_bytes
        self._limits = limits
        self._take = take
        self.read_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces; raises Refusal for a body that is too large or too slow."""
        self._check_declared()
        end_s = time.monotonic() + self._limits.body_limit_s
        more = True
        while more:
            piece, more = await self._receive(end_s)
            self.read_bytes += len(piece)
            self._take(len(piece))
            if self.read_bytes > self._limit_bytes:
                raise self._too_large()
            if piece:
                yield piece

    async def whole(self) -> bytes:
        """Return all of it."""
        pieces = bytearray()
        async for piece in self:
            pieces += piece
        return bytes(pieces)

    def _check_declared(self) -> None:
        """Refuse a body that says itself that it is too large before any of it is read."""
        declared = self._request.headers.get("content-length", "0")
        if not declared.isdecimal():
            raise invalid("is not a number", field="Content-Length")
        if int(declared[:20]) > self._limit_bytes:
            raise self._too_large()

    async def _receive(self, end_s: float) -> tuple[bytes, bool]:
        wait_s = min(self._limits.body_idle_s, end_s - time.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                message = await self._request.receive()
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return message.get("body", b""), message.get("more_body", False)

    def _too_large(self) -> Refusal:
        limit = f"{self._limit_bytes / MEBIBYTE:g} MiB"
        return too_large(f"the body is larger than {limit}")


def _too_slow() -> Refusal:
    return refusal(408, Code.DEADLINE_EXCEEDED, "REQUEST_TIMEOUT", "the body did not arrive in time")
