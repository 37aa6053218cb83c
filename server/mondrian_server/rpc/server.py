"""The gRPC server: its options, its services and its address."""

from dataclasses import replace
from pathlib import Path

import grpc

from mondrian.v1 import advisor_service_pb2, analysis_service_pb2, model_service_pb2
from mondrian_server.errors import StartupError
from mondrian_server.rpc.analysis_service import AnalysisServicer
from mondrian_server.rpc.authentication import Authentication, AuthenticationInterceptor, caller
from mondrian_server.rpc.catalogue_services import AdvisorServicer, ModelServicer
from mondrian_server.rpc.counting import UNOBSERVED, Counting, RpcObserver
from mondrian_server.rpc.health import HEALTH_SERVICE, Health
from mondrian_server.rpc.reception import Context, Reception, ReceptionLimits
from mondrian_server.rpc.reflection import METHODS as REFLECTION_METHODS
from mondrian_server.rpc.reflection import register_reflection
from mondrian_server.rpc.registration import register
from mondrian_server.rpc.tls import Tls

ANALYSIS_SERVICE = analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"]
ADVISOR_SERVICE = advisor_service_pb2.DESCRIPTOR.services_by_name["AdvisorService"]
MODEL_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]

_METHODS = (
    *(
        f"/{service.full_name}/{method.name}"
        for service in (ANALYSIS_SERVICE, ADVISOR_SERVICE, MODEL_SERVICE, HEALTH_SERVICE)
        for method in service.methods
    ),
    *REFLECTION_METHODS,
)


def make_health() -> Health:
    """Return the health of the services that `make_server` serves."""
    return Health(following=(ANALYSIS_SERVICE.full_name,), steady=(ADVISOR_SERVICE.full_name, MODEL_SERVICE.full_name))


def make_server(
    *,
    analyses: AnalysisServicer,
    advisors: AdvisorServicer,
    models: ModelServicer,
    health: Health,
    max_message_bytes: int,
    reception_limits: ReceptionLimits,
    observer: RpcObserver = UNOBSERVED,
    authentication: Authentication,
    reflection: bool,
) -> grpc.aio.Server:
    """Return a server with every service on it, not yet bound or started; `observer` hears of every call."""
    interceptors = (Counting(observer, _METHODS), AuthenticationInterceptor(authentication))
    server = grpc.aio.server(interceptors=interceptors, options=_options(max_message_bytes))
    # Whoever sends photos slowly can cancel and watch meanwhile: new analyses have places of their own.
    creations = Reception(reception_limits, caller=lambda _: caller(), enter=analyses.door.enter)
    others = Reception(reception_limits, caller=lambda _: caller())
    own = {"Analyze": creations, "CreateAnalysis": creations}
    register(server, ANALYSIS_SERVICE, analyses, others, own)
    register(server, ADVISOR_SERVICE, advisors, others)
    register(server, MODEL_SERVICE, models, others)
    # Anybody may ask for health, and nobody from one address may keep others from it.
    health.register(server, Reception(replace(reception_limits, shared=True), caller=_address_of))
    if reflection:
        services = (
            ANALYSIS_SERVICE.full_name,
            ADVISOR_SERVICE.full_name,
            MODEL_SERVICE.full_name,
            HEALTH_SERVICE.full_name,
        )
        register_reflection(server, services)
    return server


def bind(server: grpc.aio.Server, address: str, tls: Tls | None = None) -> int:
    """Listen on `host:port` (port 0: a free one) and return the port; raises StartupError if it is taken."""
    try:
        return server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {address}: is another server running there?") from error


def bind_private(server: grpc.aio.Server, path: Path) -> str:
    """Listen on a unix socket too, without TLS, and return the target for channels of this process.

    Whoever comes by it is named by its key alone. Nobody else may enter the folder of `path`: it guards the socket.
    """
    target = f"unix:{path}"
    try:
        server.add_insecure_port(target)
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {target}") from error
    return target


def _address_of(context: Context) -> str:
    """Return where a call comes from, without its port."""
    return context.peer().rpartition(":")[0]


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Return the channel arguments: limits, and keep-alive that lets phones ping through quiet stretches."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        # Else gRPC takes in 8 MiB of each message on a fast line before anybody reads it; so it is 64 KiB. The price:
        # a message that is read comes at a megabyte a round trip, 10 MB/s over a line of 100 ms.
        ("grpc.http2.bdp_probe", 0),
        # By default a second server would bind the same port in silence and take half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]
