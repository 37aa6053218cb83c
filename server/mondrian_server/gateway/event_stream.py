"""Event streams: what is followed, as server-sent events."""

from collections.abc import AsyncIterator

import structlog
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from mondrian.v1 import analysis_pb2 as pb
from mondrian_server.gateway.following import Following
from mondrian_server.gateway.options import Limits
from mondrian_server.gateway.refusals import Refusal
from mondrian_server.gateway.wire_json import to_dict, to_line

RETRY_MS = 2000
"""How long a client waits before it reconnects."""

INTERRUPTED = "interrupted"
"""The event, without an id, that ends a stream before the analysis: its data is the body of an error."""

_HEADERS = {"Cache-Control": "no-cache"}
_log = structlog.stdlib.get_logger(__name__)


class Streams:
    """The streams that are open, so that the end of the gateway can end them."""

    def __init__(self) -> None:
        """Begin without any."""
        self._open: set[Following] = set()
        self.closed = False

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._open)

    def add(self, following: Following) -> None:
        """Take in a stream; one that comes too late is left at once."""
        self._open.add(following)
        if self.closed:
            following.leave()

    def discard(self, following: Following) -> None:
        """Let go of a stream, and close it."""
        self._open.discard(following)
        following.close()

    def close(self) -> None:
        """End all of them, and those that are still to come."""
        self.closed = True
        for following in self._open:
            following.leave()


class EventStream(EventSourceResponse):
    """A response of server-sent events. It closes what it follows, however it ends."""

    def __init__(self, following: Following, first: pb.Event | None, streams: Streams, limits: Limits) -> None:
        """Prepare the response; `first` is the event that has been read already, if one has."""
        location = {"Content-Location": f"/v1/{following.analysis}"}
        super().__init__(  # pyright: ignore[reportUnknownMemberType] # sse-starlette leaves the values of a dict open
            _server_sent(following, first),
            headers=_HEADERS | location,
            ping=limits.comment_interval_s,
            ping_message_factory=_comment,
            sep="\n",
            send_timeout=limits.send_limit_s,
        )
        self._following = following
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the analysis or the connection ends."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            _log.info("a client stopped reading", analysis=self._following.analysis)
        finally:
            self._streams.discard(self._following)


async def _server_sent(following: Following, first: pb.Event | None) -> AsyncIterator[ServerSentEvent]:
    try:
        yield _Line(f"retry: {RETRY_MS}")
        if first is not None:
            yield _server_sent_event(first)
        async for event in following.events():
            yield _server_sent_event(event)
    except Refusal as error:
        yield ServerSentEvent(to_line(error.body), event=INTERRUPTED, sep="\n")


def _server_sent_event(event: pb.Event) -> ServerSentEvent:
    payload = event.WhichOneof("payload") or "unknown"
    return ServerSentEvent(to_line(to_dict(event)), event=payload, id=str(event.sequence), sep="\n")


class _Line(ServerSentEvent):
    """A line by itself. Without the empty line of an event, because some clients take each of those for one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def encode(self) -> bytes:
        return f"{self._text}\n".encode()


def _comment() -> ServerSentEvent:
    return _Line(": ping")
