"""The face: a gateway that listens, and what a client of it does and sees."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from mondrian_server.gateway.connection import open_channel
from mondrian_server.gateway.options import GatewayOptions, Limits
from mondrian_server.gateway.serving import gateway
from tests.checkpoints import EMBEDDED

PICTURE = EMBEDDED / "samples" / "shapes-red-circle.png"
TERMINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An event as it came."""

    id: int
    event: str
    data: dict[str, Any]
    time_s: float


@dataclass(slots=True, kw_only=True)
class Stream:
    """What a client has seen of an analysis, over all its connections."""

    events: list[Seen] = field(default_factory=list[Seen])
    statuses: list[int] = field(default_factory=list[int])
    interruptions: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def last_id(self) -> int:
        """The id of the last event."""
        return self.events[-1].id if self.events else 0

    @property
    def ended(self) -> bool:
        """Whether the terminal event has come."""
        return bool(self.events) and self.events[-1].event in TERMINAL

    @property
    def name(self) -> str:
        """The analysis."""
        return str(self.events[0].data["analysis"])

    @property
    def text(self) -> str:
        """The texts of all tokens together."""
        return "".join(seen.data["token"]["text"] for seen in self.events if seen.event == "token")

    @property
    def final_text(self) -> str:
        """The text of the terminal event."""
        return str(self.events[-1].data["completed"]["text"])

    def has_token(self) -> bool:
        """Whether a token has come."""
        return any(seen.event == "token" for seen in self.events)

    def assert_whole(self) -> None:
        """Fail unless every event came once and in order, to the end."""
        assert [seen.id for seen in self.events] == list(range(1, len(self.events) + 1))
        assert self.ended
        assert self.text == self.final_text

    def add(self, sent: ServerSentEvent) -> None:
        """Take in what httpx-sse has read."""
        data = json.loads(sent.data)
        if sent.event == "interrupted":
            self.interruptions.append(data)
        else:
            assert data["sequence"] == int(sent.id)
            self.events.append(Seen(id=int(sent.id), event=sent.event, data=data, time_s=time.monotonic()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A gateway, and a client of it."""

    url: str
    http: httpx.AsyncClient

    async def ready(self) -> bool:
        """Ask whether the service is ready."""
        with contextlib.suppress(httpx.TransportError):
            return (await self.http.get("/readyz")).status_code == 200
        return False

    async def create(self, config: dict[str, Any], **headers: str) -> str:
        """Create an analysis by JSON and return its name."""
        response = await self.http.post("/v1/analyses", json={"config": config}, headers=headers)
        assert response.status_code == 201, response.text
        return str(response.json()["name"])

    async def get(self, name: str) -> dict[str, Any]:
        """Get an analysis."""
        response = await self.http.get(f"/v1/{name}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def read(
        self,
        stream: Stream,
        name: str,
        *,
        until: Callable[[], bool] = lambda: False,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Read one connection's worth of an analysis, after what was seen, or until a condition holds."""
        sent = {"Last-Event-ID": str(stream.last_id)} if stream.last_id else {}
        async with self.http.stream("GET", f"/v1/{name}/events", headers=sent | (headers or {})) as response:
            await take(response, stream, until)

    async def follow(self, name: str, *, within_s: float = 60.0) -> Stream:
        """Read an analysis to its end as an EventSource does: what breaks off is read on after the last id."""
        stream = Stream()
        async with asyncio.timeout(within_s):
            while not stream.ended:
                try:
                    await self.read(stream, name)
                except httpx.TransportError:
                    stream.statuses.append(0)
                if not stream.ended:
                    await asyncio.sleep(0.2)
        return stream

    async def analyze(self, config: dict[str, Any], *, until: Callable[[Stream], bool] = lambda _: False) -> Stream:
        """Create and follow an analysis in one request, to its end or until a condition holds."""
        stream = Stream()
        async with self.http.stream("POST", "/v1/analyze", json={"config": config}) as response:
            await take(response, stream, lambda: until(stream))
        return stream


async def take(response: httpx.Response, stream: Stream, until: Callable[[], bool] = lambda: False) -> None:
    """Read the events of a response to their end, or until a condition holds."""
    stream.statuses.append(response.status_code)
    if response.status_code == 204:
        return
    assert response.status_code == 200, (await response.aread()).decode()
    async with contextlib.aclosing(EventSource(response).aiter_sse()) as events:
        async for sent in events:
            stream.add(sent)
            if until():
                return


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the reason of a refusal, whose shape is checked."""
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert isinstance(error["code"], int)
    assert error["message"]
    (info,) = [one for one in error["details"] if one["@type"].endswith("ErrorInfo")]
    assert info["domain"] == "mondrian"
    return response.status_code, str(info["reason"])


def field_of(response: httpx.Response) -> str:
    """Return the field that a refusal names."""
    (bad,) = [one for one in response.json()["error"]["details"] if one["@type"].endswith("BadRequest")]
    return str(bad["fieldViolations"][0]["field"])


@contextlib.asynccontextmanager
async def facing(port: int, *, scheme: str = "http", **options: Any) -> AsyncGenerator[Face]:
    """Give a client of a gateway on a port; the environment's proxies are not asked."""
    url = f"{scheme}://127.0.0.1:{port}"
    pool = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, limits=pool, **options) as http:
        yield Face(url=url, http=http)


@contextlib.asynccontextmanager
async def standing_alone(
    target: str, limits: Limits | None = None, *, ca: bytes | None = None, **options: Any
) -> AsyncGenerator[Face]:
    """Run a gateway in this process, over a server elsewhere, and give a client of it."""
    made = GatewayOptions(limits=limits or Limits(), **options)
    async with (
        open_channel(target, ca=ca) as channel,
        gateway("127.0.0.1:0", channel, made) as up,
        facing(up.port) as face,
    ):
        yield face


@contextlib.asynccontextmanager
async def connected(face: Face) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a gateway without an HTTP client, for what none would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(face.url).port, limit=65536)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
