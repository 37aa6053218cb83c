"""Counting: how calls end and how long they take, told to whoever counts them."""

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator
from typing import Any, TypeAlias

import grpc

from mondrian_server.rpc.deadlines import Deadline
from mondrian_server.rpc.reception import Context

UNKNOWN_METHOD = "unknown"
"""What stands for every method that the server does not have, because its name is the caller's."""

RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class RpcObserver:
    """Hears of calls, on the event loop. This one takes no notice; one that counts overrides it."""

    def rpc_began(self, method: str) -> None:
        """Hear that a call came in; methods are `package.Service/Method`."""

    def rpc_ended(self, method: str, code: str, took_s: float) -> None:
        """Hear how a call ended: the name of its status code, as far as the server knows it."""


UNOBSERVED = RpcObserver()
"""Where nobody counts."""


class Counting(grpc.aio.ServerInterceptor):
    """Tells of each call. To be the first interceptor, so that what the others refuse is counted too."""

    def __init__(self, observer: RpcObserver, methods: Collection[str]) -> None:
        """Tell of `methods` (`/package.Service/Method`) by their names, and of all others as unknown."""
        self._observer = observer
        self._methods = frozenset(methods)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["RpcHandler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> RpcHandler:
        """Put the counting around the call's handler."""
        full_name: str = handler_call_details.method
        method = full_name.removeprefix("/") if full_name in self._methods else UNKNOWN_METHOD
        handler = await continuation(handler_call_details)
        if handler is None:
            self._observer.rpc_began(method)
            self._observer.rpc_ended(method, grpc.StatusCode.UNIMPLEMENTED.name, 0.0)
            return handler  # pyright: ignore[reportReturnType]  # types-grpcio forgets that there may be none
        return self._around(handler, method)

    def _around(self, handler: RpcHandler, method: str) -> RpcHandler:
        """Return a handler of the same kind that counts; grpc looks at the kind of function that it is."""
        make, inner = _parts(handler)
        if inspect.isasyncgenfunction(inner):

            async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
                with self._counted(method, context):
                    async with contextlib.aclosing(inner(request, context)) as responses:
                        async for response in responses:
                            yield response

            around: Callable[..., Any] = answers
        else:

            async def answer(request: Any, context: Context) -> Any:
                with self._counted(method, context):
                    return await inner(request, context)

            around = answer
        return make(around, handler.request_deserializer, handler.response_serializer)

    @contextlib.contextmanager
    def _counted(self, method: str, context: Context) -> Generator[None]:
        began_at = time.perf_counter()
        deadline = Deadline.of(context)
        self._observer.rpc_began(method)
        code = grpc.StatusCode.UNKNOWN
        try:
            yield
            code = _code_of(context)
        except grpc.aio.AbortError:
            code = _code_of(context)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            # grpc does not say which it was, and a caller whose deadline comes resets its call as one that cancels.
            was_late = deadline.may_have_passed
            code = grpc.StatusCode.DEADLINE_EXCEEDED if was_late else grpc.StatusCode.CANCELLED
            raise
        finally:
            self._observer.rpc_ended(method, code.name, time.perf_counter() - began_at)


def _parts(handler: RpcHandler) -> tuple[Callable[..., RpcHandler], Callable[..., Any]]:
    """Return what makes a handler of this kind, and the function inside."""
    makers = {
        (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
    }
    make, inner = makers[handler.request_streaming, handler.response_streaming]
    assert inner is not None
    return make, inner


def _code_of(context: Context) -> grpc.StatusCode:
    """Return the code that was set; grpc has None, or 0, where none was."""
    return context.code() or grpc.StatusCode.OK
