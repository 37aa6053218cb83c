"""The standard health protocol, without its package: `grpc.health.v1.Health/Watch`."""

from google.protobuf import wrappers_pb2

WATCH = "/grpc.health.v1.Health/Watch"
"""The method that streams the status, first the present one."""

SERVING = 1
"""`HealthCheckResponse.ServingStatus.SERVING`."""


def request_to_wire(service: str) -> bytes:
    """Serialise a `HealthCheckRequest`: like `StringValue`, one string in field 1."""
    return wrappers_pb2.StringValue(value=service).SerializeToString()


def status_from_wire(data: bytes) -> int:
    """Parse a `HealthCheckResponse`: like `Int32Value`, one integer in field 1."""
    return wrappers_pb2.Int32Value.FromString(data).value


RETRY_S = 0.1
"""How long to wait before a watch that the server ended is opened again."""
