"""Registration: puts servicers on the server so that every error leaves as a rich status.

The generated registration parses requests before a handler sees them, and answers a malformed one with INTERNAL. Here a
request that cannot be parsed is INVALID_ARGUMENT with the field's name, and every error of `mondrian_server.errors`
that a handler raises becomes the status it stands for.

Methods are registered as if their callers sent streams, which looks the same on the wire: gRPC for Python reads a
single request before it calls the handler, and keeps its bytes until the call has ended. Here nobody but the handler
holds a request, so that one with images is gone when the handler lets it go.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from mondrian_server.errors import InternalError, InvalidRequest, MondrianError
from mondrian_server.rpc import deadlines
from mondrian_server.rpc.reception import Context, Reception
from mondrian_server.rpc.status import to_status
from mondrian_server.rpc.utf8 import find_invalid_text

_log = structlog.stdlib.get_logger(__name__)

Handler = Callable[[Any, Context], Awaitable[Message | None]]


class StatusError(Exception):
    """Ends a call with a status that is already made."""

    def __init__(self, status: Status) -> None:
        """Keep the status."""
        super().__init__(status.message)
        self.status = status


def register(
    server: grpc.aio.Server,
    service: ServiceDescriptor,
    servicer: object,
    reception: Reception | None = None,
    receptions: Mapping[str, Reception] = MappingProxyType({}),
) -> None:
    """Serve each method of `service` by the servicer's method of the same name.

    Its requests are received by the method's own reception where there is one, else by `reception`.
    """
    reception = reception or Reception()
    handlers = {
        method.name: _method_handler(method, getattr(servicer, method.name), receptions.get(method.name, reception))
        for method in service.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))


def _method_handler(
    method: MethodDescriptor, handler: Handler, reception: Reception
) -> "grpc.RpcMethodHandler[Any, Any]":
    make = grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.stream_unary_rpc_method_handler
    return make(
        _with_statuses(handler, reception),
        request_deserializer=_parser(method),
        response_serializer=_serialise,
    )


def _serialise(response: Message | bytes) -> bytes:
    """Return a response's bytes; a handler may have made them already."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def _parser(method: MethodDescriptor) -> Callable[[bytes], Message | InvalidRequest]:
    """Return a parser that gives the error instead of raising it, so that the handler can answer with it."""
    kind = message_factory.GetMessageClass(method.input_type)

    def parse(data: bytes) -> Message | InvalidRequest:
        try:
            return kind.FromString(data)
        except DecodeError:
            field = find_invalid_text(method.input_type, data)
            message = "the text is not valid UTF-8" if field else f"not a valid {method.input_type.full_name} message"
            return InvalidRequest(message, field=field or "")

    return parse


async def _received(context: Context, reception: Reception) -> Message:
    """Return the call's one request; raises InvalidRequest where there is none."""
    request = await reception.receive(context)
    if isinstance(request, Message):
        return request
    raise request if isinstance(request, InvalidRequest) else InvalidRequest("the call has no request")


def _with_statuses(handler: Handler, reception: Reception) -> Callable[[object, Context], Awaitable[Message | None]]:
    async def handle(_: object, context: Context) -> Message | None:
        deadlines.begin(context)  # Receiving the request is part of its time.
        try:
            # No name for the request: the handler alone is to hold it.
            return await handler(await _received(context, reception), context)
        except MondrianError as error:
            return await abort(context, to_status(error))
        except StatusError as error:
            return await abort(context, error.status)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            if context.cancelled() or context.done():
                return None  # A write to a caller that has gone.
            _log.exception("a handler failed", error=repr(error)[:200])
            return await abort(context, to_status(InternalError("the server has a defect; see its log")))

    return handle


async def abort(context: Context, status: Status) -> None:
    """End a call with a rich status; does not return."""
    to_grpc: Any = vars(rpc_status)["to_status"]  # grpcio-status carries no types
    await context.abort_with_status(to_grpc(status))
