"""Reflection: lets `grpcurl` and `buf curl` ask for the contract, by v1 and v1alpha."""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as grpc_reflection

V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"
METHODS = tuple(f"/{name}/ServerReflectionInfo" for name in (V1, V1ALPHA))


def register_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Serve reflection for the named services under both versions, whose messages are the same on the wire.

    grpcio-reflection 1.85 knows v1alpha only; delete this when it serves v1.
    """
    servicer: Any = grpc_reflection.ReflectionServicer(service_names=(*services, V1ALPHA))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=_parsed,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (V1, V1ALPHA):
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}),)
        )


def _parsed(data: bytes) -> reflection_pb2.ServerReflectionRequest:
    """Return the request; for what is none an empty one, which the servicer answers with INVALID_ARGUMENT."""
    try:
        return reflection_pb2.ServerReflectionRequest.FromString(data)
    except DecodeError:
        return reflection_pb2.ServerReflectionRequest()
