"""The limits of connections: how many there are, and how long the next request of one may take to come whole.

uvicorn 0.54 waits for the head of a request for ever, and reads on in a body that has been answered already; where it
bounds connections it refuses the checks of health too, and says not when to come back.
"""

import asyncio
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
from mondrian_server.gateway.refusals import refusal

_RETRY_S = 2.0
_SPARE_CONNECTIONS = 64
"""Connections beyond the most that are told so, or asked how the service is. What comes beyond them is dropped."""

_log = structlog.stdlib.get_logger(__name__)


def limited_protocol(limit_s: float, max_connections: int) -> type[H11Protocol]:
    """Return uvicorn's protocol with a limit on connections, and on what comes outside of answered requests."""

    class LimitedProtocol(H11Protocol):
        """Closes the connection when a head, or the rest of a body that was refused, takes too long.

        One that is too many is answered 503 and closed.
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

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            excess = len(self.connections) - max_connections
            if excess == 1:
                _log.warning("too many connections: further ones are answered 503", max_connections=max_connections)
            if excess > _SPARE_CONNECTIONS:
                transport.abort()
            elif excess > 0:
                self.app = _full(self.app)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:
                self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._unwatch()

        def _watch(self) -> None:
            if self._is_answering():
                self._unwatch()
            elif self._limit is None and not self.transport.is_closing():
                self._limit = self.loop.call_later(limit_s, self._close)

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
