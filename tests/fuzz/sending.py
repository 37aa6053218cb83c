"""Sending: makes attempts on a running service, and judges what comes back."""

import asyncio
import collections
import contextlib
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from mondrian_server.errors import MondrianError
from tests.fuzz.attempts import PATHS, Attempt, Noise
from tests.service.calls import HEALTH_WATCH

ORDINARY = frozenset(path for path in PATHS.values() if path.startswith("/mondrian."))
ENDED_WHILE_WRITING = "ended while more was being written"
"""gRPC's client cannot tell the status of a call that the server has ended before all was written."""

REFUSED_BY_CLIENT = "refused by the client's own library"

HANG_S = 60.0
"""More than any attempt may take, on a machine that does other things too."""


def _reasons(kind: type[MondrianError]) -> dict[str, int]:
    """Return the codes of all reasons of the tree of errors, `INTERNAL` ones left out."""
    found = {kind.reason: kind.code.value}
    for below in kind.__subclasses__():
        found |= _reasons(below)
    return {reason: code for reason, code in found.items() if code != grpc.StatusCode.INTERNAL.value[0]}


REASONS = _reasons(MondrianError)


@dataclass(slots=True)
class Tally:
    """How often what came back."""

    count: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter[str])


async def send(channel: grpc.aio.Channel, port: int, attempt: Attempt | Noise, tally: Tally) -> None:
    """Make an attempt; raises AssertionError where the answer is none that a server of ours may give."""
    tally.count += 1
    async with asyncio.timeout(HANG_S):
        if isinstance(attempt, Noise):
            await _make_noise(port, attempt.data)
            tally.outcomes["noise"] += 1
        else:
            tally.outcomes[await _noted(channel, attempt)] += 1


async def _noted(channel: grpc.aio.Channel, attempt: Attempt) -> str:
    try:
        return await _call(channel, attempt)
    except Exception as error:
        error.add_note(repr(attempt)[:3000])
        raise


async def _make_noise(port: int, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            writer.write(data)
            await writer.drain()
            async with asyncio.timeout(0.02):
                await reader.read(1000)
    finally:
        writer.transport.abort()


async def _call(channel: grpc.aio.Channel, attempt: Attempt) -> str:
    try:
        call = _begun(channel, attempt)
    except (ValueError, TypeError):
        return REFUSED_BY_CLIENT
    leaves_after_s = 0.05 if attempt.path == HEALTH_WATCH else attempt.leaves_after_s
    try:
        return await asyncio.wait_for(_talk(call, attempt), leaves_after_s)
    except TimeoutError:
        return "left"
    finally:
        call.cancel()


def _begun(channel: grpc.aio.Channel, attempt: Attempt) -> Any:
    """Return the call, of the kind that sends what is to be sent."""
    methods: Any = channel
    if attempt.is_plain:
        plain = methods.unary_stream(attempt.path)
        return plain(attempt.sent[0], metadata=attempt.metadata, timeout=attempt.timeout_s)
    return methods.stream_stream(attempt.path)(metadata=attempt.metadata, timeout=attempt.timeout_s)


async def _talk(call: Any, attempt: Attempt) -> str:
    try:
        if not attempt.is_plain:
            for data in attempt.sent:
                await call.write(data)
            if attempt.closes:
                await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
        code = await call.code()
        if code is grpc.StatusCode.OK:
            return "OK"
        error = grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )
    except grpc.aio.AioRpcError as raised:
        error = raised
    except (asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.InternalError):
        return ENDED_WHILE_WRITING
    except asyncio.CancelledError:
        if not call.cancelled():
            raise
        return "left"
    return _judged(error, attempt)


def _judged(error: grpc.aio.AioRpcError, attempt: Attempt) -> str:
    """Return the error in a word; raises AssertionError where it is none that may come."""
    code, reason = error.code(), _reason(error)
    if attempt.metadata and error.details() == "Invalid metadata":
        return REFUSED_BY_CLIENT
    if not attempt.is_plain and error.details() == "Internal error from Core":
        return ENDED_WHILE_WRITING
    assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), error
    if reason:
        assert REASONS.get(reason) == code.value[0], error
        return reason
    match code:
        case grpc.StatusCode.CANCELLED | grpc.StatusCode.DEADLINE_EXCEEDED:
            pass  # Ours, or by somebody who cancelled the analysis.
        case grpc.StatusCode.UNIMPLEMENTED:
            assert attempt.path not in ORDINARY, error
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            assert attempt.metadata, error  # gRPC itself refuses more than 8 KiB of it.
        case _:
            assert attempt.path not in ORDINARY, error
    return code.name


def _reason(error: grpc.aio.AioRpcError) -> str:
    try:
        status: Status | None = vars(rpc_status)["from_call"](error)  # grpcio-status carries no types
    except ValueError:
        # The call's own deadline came between the trailers and their status: gRPC mixes the two.
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error
        return ""
    info = ErrorInfo()
    if status is None or not any(detail.Unpack(info) for detail in status.details):
        return ""
    assert info.domain == "mondrian"
    return info.reason
