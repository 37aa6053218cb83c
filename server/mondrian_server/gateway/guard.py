"""The guard: refuses names and origins that are not ours, before anything of a request is read.

A page of another site may make a browser call a service on the user's own machine: under a name of the site's own that
suddenly means 127.0.0.1 (DNS rebinding), or with a plain form. The first is told by `Host`, the second by `Origin`.
"""

from urllib.parse import urlsplit

from google.rpc.code_pb2 import Code
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mondrian_server.gateway.answers import refused
from mondrian_server.gateway.refusals import Refusal, refusal

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
ALL = "*"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    # The page and what it loads come from here; nothing else is asked or asks.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Lets requests through that are meant for this service."""

    def __init__(
        self, app: ASGIApp, *, allowed_hosts: frozenset[str], cors_origins: tuple[str, ...], keys_needed: bool
    ) -> None:
        """Stand before an application."""
        self._keys_needed = keys_needed
        self._app = app
        self._hosts = allowed_hosts | LOOPBACK
        self._origins = frozenset(origin.lower() for origin in cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        error = self._complaint(scope["method"], scope["path"], Headers(scope=scope))
        await (self._app if error is None else refused(error))(scope, receive, send_guarded)

    def _complaint(self, method: str, path: str, headers: Headers) -> Refusal | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(host_name(hosts[0])):
            message = "this service does not answer to that name; the setting http_allowed_hosts adds names"
            return refusal(421, Code.PERMISSION_DENIED, "HOST_NOT_ALLOWED", message, field="Host")
        origin = headers.get("origin", "").lower()
        if origin and method not in _SAFE_METHODS and not self._may_write(origin, hosts[0].lower()):
            message = "pages of that origin may not call this service; the setting http_cors_origins adds origins"
            return refusal(403, Code.PERMISSION_DENIED, "ORIGIN_NOT_ALLOWED", message, field="Origin")
        # A preflight carries no key.
        asks = path.startswith("/v1/") or path == "/metrics"
        if self._keys_needed and asks and method != "OPTIONS" and "authorization" not in headers:
            return refusal(401, Code.UNAUTHENTICATED, "UNAUTHENTICATED", "send Authorization: Bearer and your key")
        return None

    def _is_ours(self, name: str) -> bool:
        return name in self._hosts or ALL in self._hosts

    def _may_write(self, origin: str, host: str) -> bool:
        return urlsplit(origin).netloc == host or origin in self._origins or ALL in self._origins


def host_name(host: str) -> str:
    """Return the name in a `Host` header or an address, in lower case and without its port; IPv6 in brackets."""
    host = host.strip().lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.removesuffix(".")
