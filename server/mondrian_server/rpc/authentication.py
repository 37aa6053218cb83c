"""Authentication: who makes a call, known before a byte of its message is read, and told to the servicers.

A caller is named by its API key (`authorization: Bearer KEY`), else by the certificate of its connection: the common
name of the subject, or, where that is empty, the first DNS name of the subject's alternatives. Where the server has
neither keys nor client certificates, everybody is `local`.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, cast

import grpc

from mondrian_server.errors import MondrianError, Unauthenticated
from mondrian_server.rpc.reception import Context
from mondrian_server.rpc.registration import abort
from mondrian_server.rpc.status import to_status

LOCAL_CALLER = "local"
"""Who everybody is on a server without keys and client certificates, which listens on loopback only."""

OPEN_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
"""Services that anybody may call, where they are served."""

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
_HEADER = "authorization"
_SCHEME = "bearer"

_caller: ContextVar[str] = ContextVar("caller")

MethodHandler = Any  # grpc's own type has no fields for checkers
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler]]
Name = Callable[[Context], str]


class Keys(Protocol):
    """What knows the bearers of keys."""

    def identify(self, text: str) -> str:
        """Return the caller whose key this is; raises Unauthenticated or KeyRevoked."""
        ...


def caller() -> str:
    """Return who makes the call that is being served."""
    return _caller.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """How callers are told apart. `certificates`: whether a connection's certificate names its caller."""

    keys: Keys | None = None
    certificates: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether callers must show who they are."""
        return self.keys is not None or self.certificates


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls of nobody, and tells `caller` who makes the others."""

    def __init__(self, authentication: Authentication) -> None:
        """Tell callers apart in this way."""
        self._authentication = authentication

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> MethodHandler:
        """Return the method's handler with the caller known, or one that refuses the call."""
        handler = await continuation(handler_call_details)
        if handler is None or _service_of(handler_call_details.method) in OPEN_SERVICES:
            return handler
        try:
            name = self._name_of_caller(_authorizations(handler_call_details))
        except MondrianError as error:
            return _refusing(error)
        return _naming(handler, name)

    def _name_of_caller(self, authorizations: list[str]) -> Name:
        """Return what gives the caller's name; raises Unauthenticated or KeyRevoked where a key does not."""
        if not self._authentication.is_needed:
            return lambda _: LOCAL_CALLER
        if self._authentication.keys is not None and authorizations:
            named_by_key = self._authentication.keys.identify(_bearer(authorizations))
            return lambda _: named_by_key
        if self._authentication.certificates:
            return _named_by_certificate
        raise Unauthenticated("the call has no API key; send it as `authorization: Bearer KEY`")


def _service_of(method: str) -> str:
    return method.strip("/").partition("/")[0]


def _authorizations(details: grpc.HandlerCallDetails) -> list[str]:
    metadata: Any = details.invocation_metadata or ()
    return [value if isinstance(value, str) else "" for key, value in metadata if key == _HEADER]


def _bearer(authorizations: list[str]) -> str:
    """Return the one key that was sent."""
    scheme, _, key = authorizations[0].partition(" ")
    if len(authorizations) > 1 or scheme.lower() != _SCHEME:
        raise Unauthenticated("send one API key, as `authorization: Bearer KEY`")
    return key.strip()


def _named_by_certificate(context: Context) -> str:
    """Return the name in the certificate of the connection, which TLS has verified."""
    facts: Any = context.auth_context()
    for kind in ("x509_common_name", "peer_dns"):
        for value in facts.get(kind, ()):
            name = value.decode("utf-8", "replace").strip()
            if name:
                return name
    raise Unauthenticated("the call has neither an API key nor a client certificate with a common name")


def _naming(handler: MethodHandler, name: Name) -> MethodHandler:
    """Return the handler with the caller known while it runs; ours are coroutines of whatever kind."""
    kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
    serve = getattr(handler, kind)

    async def serve_named(request: Any, context: Context) -> Any:
        try:
            _caller.set(name(context))
        except MondrianError as error:
            return await abort(context, to_status(error))
        return await serve(request, context)

    return handler._replace(**{kind: serve_named})


def _refusing(error: MondrianError) -> MethodHandler:
    """Return a handler that answers with the error; one for streams of requests, because it reads none."""

    async def refuse(_: Any, context: Context) -> None:
        await abort(context, to_status(error))

    return cast("MethodHandler", grpc.stream_stream_rpc_method_handler(refuse))
