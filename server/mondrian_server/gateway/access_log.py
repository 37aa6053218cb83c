"""The access log: one line for each answer, without queries and bodies."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""What is asked again and again by machines, and logged as detail only."""

_MAX_PATH_CHARACTERS = 200
_log = structlog.stdlib.get_logger(__name__)


class AccessLog:
    """Logs what was asked by its path, what the answer was, how much was sent and how long it took."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        status = 0
        sent_bytes = 0

        async def send_counted(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        finally:
            write = _log.debug if scope["path"] in QUIET else _log.info
            write(
                "answered",
                method=scope["method"],
                path=scope["path"][:_MAX_PATH_CHARACTERS],
                status=status or None,
                sent_bytes=sent_bytes,
                took_s=round(time.monotonic() - began_s, 3),
            )
