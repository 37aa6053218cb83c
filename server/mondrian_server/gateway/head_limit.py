"""The head limit: closes connections whose next request does not come whole in time.

uvicorn 0.54 waits for the head of a request for ever, and reads on in a body that has been answered already. Delete
this when it bounds both.
"""

import asyncio
from typing import Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState


def limited_protocol(limit_s: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with a limit on what comes outside of requests that are being answered."""

    class LimitedProtocol(H11Protocol):
        """Closes the connection when a head, or the rest of a body that was refused, takes too long."""

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
