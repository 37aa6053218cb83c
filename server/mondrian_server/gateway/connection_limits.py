"""The limits of connections: how many there are, how long a request may take to come, and an answer to be taken.

uvicorn 0.54 waits for the head of a request for ever, reads on in a body that has been answered already, and keeps what
a client does not take of its answer; where it bounds connections it refuses the checks of health too, and says not when
to come back.
"""

import asyncio
import math
from typing import Any, cast

import h11
import structlog
from google.rpc.code_pb2 import Code
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from mondrian_server.gateway.access_log import QUIET
from mondrian_server.gateway.answers import refused
from mondrian_server.gateway.options import Limits
from mondrian_server.gateway.refusals import refusal

_RETRY_S = 2.0
_WARN_EVERY_S = 60.0
_SPARE_CONNECTIONS = 64
"""Connections beyond the most that are told so, or asked how the service is. What comes beyond them is dropped."""

_log = structlog.stdlib.get_logger(__name__)


def limited_protocol(limits: Limits) -> type[H11Protocol]:
    """Return uvicorn's protocol with limits on connections and on what happens outside of requests being answered."""
    warned_s = -math.inf

    class LimitedProtocol(H11Protocol):
        """Closes the connection when a head, or the rest of a body that was refused, takes too long.

        One of which nothing is taken any more is dropped. One that is too many is answered 503 and closed.
        """

        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self._limit: asyncio.TimerHandle | None = None
            self._taking: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            excess = len(self.connections) - limits.max_connections
            if excess > 0:
                self._warn()
            if excess > _SPARE_CONNECTIONS:
                transport.abort()
            elif excess > 0:
                self.app = _full(self.app)
            self._watch()

        def _warn(self) -> None:
            nonlocal warned_s
            if self.loop.time() - warned_s > _WARN_EVERY_S:
                warned_s = self.loop.time()
                _log.warning("too many connections: more are answered 503", max_connections=limits.max_connections)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:
                self._watch()
            self._see_that_it_is_taken()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._see_that_it_is_taken()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._unwatch()
            if self._taking is not None:
                self._taking.cancel()

        def _see_that_it_is_taken(self) -> None:
            if self._taking is None:
                self._check_taking(-1)

        def _check_taking(self, left_before: int) -> None:
            """Drop a client that has taken nothing of what is left of its answers for the limit."""
            self._taking = None
            if self.scheme == "https" and self.transport.is_closing():
                return  # asyncio ends it within 30 s; the transport, closed twice, knows no size any more
            left = self.transport.get_write_buffer_size()
            if left and left == left_before:
                self.transport.abort()
            elif left:
                self._taking = self.loop.call_later(limits.send_limit_s, self._check_taking, left)

        def _watch(self) -> None:
            if self._is_answering():
                self._unwatch()
            elif self._limit is None and not self.transport.is_closing():
                self._limit = self.loop.call_later(limits.head_limit_s, self._close)

        def _unwatch(self) -> None:
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None

        def _close(self) -> None:
            self._limit = None
            if not self._is_answering():
                self.transport.close()

        def _is_answering(self) -> bool:
            # None before the first request, whatever its type says.
            cycle = cast("RequestResponseCycle | None", self.cycle)
            return cycle is not None and not cycle.response_complete

    return LimitedProtocol


def _full(app: Any) -> Any:
    """Return an application that answers what asks how the service is, and nothing else."""
    asked = cast("ASGIApp", app)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in QUIET:
            await asked(scope, receive, send)
            return
        message = "too many connections; the setting http_max_connections bounds them"
        answer = refused(refusal(503, Code.UNAVAILABLE, "TOO_MANY_CONNECTIONS", message, retry_s=_RETRY_S))
        answer.headers["Connection"] = "close"
        await answer(scope, receive, send)

    return serve
