"""The routes of operation: whether the process lives, whether the service is ready, and its metrics."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from google.rpc.code_pb2 import Code
from starlette.responses import Response

from mondrian_server.gateway.answers import JSON, content, errors
from mondrian_server.gateway.connection import Connection, caller_metadata
from mondrian_server.gateway.refusals import refusal
from mondrian_server.gateway.schemas import Schema
from mondrian_server.gateway.wire_json import to_body

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HEALTH_LIMIT_S = 2.0
_KEY_LIMIT_S = 5.0
_STATUS: Schema = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}


def operation_routes(connection: Connection, metrics: Callable[[], bytes] | None, *, keys_needed: bool) -> APIRouter:
    """Return the routes of operation. Where keys are needed, the metrics want one that the server knows."""
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", responses={**errors(421, always=()), 200: content(JSON, _STATUS, "The gateway lives.")})
    async def healthz() -> Response:
        """Tell that the gateway lives; it asks nobody."""
        return Response(to_body({"status": "alive"}), media_type=JSON)

    @router.get(
        "/readyz", responses={**errors(421, 503, always=()), 200: content(JSON, _STATUS, "Analyses are taken.")}
    )
    async def readyz() -> Response:
        """Tell whether the service takes analyses: the model is loaded and events can be kept."""
        if not await connection.is_serving(timeout_s=_HEALTH_LIMIT_S):
            raise refusal(503, Code.UNAVAILABLE, "NOT_READY", "the service is not ready", retry_s=1.0)
        return Response(to_body({"status": "ready"}), media_type=JSON)

    if metrics is not None:

        @router.get(
            "/metrics",
            responses={
                **errors(401, 403, 421, 500, 501, 503, 504, always=()),
                200: content("text/plain", {"type": "string"}, "Prometheus text."),
            },
        )
        async def read_metrics(request: Request) -> Response:
            """Give the metrics of the service as Prometheus text; to callers with a key, where there are keys."""
            if keys_needed:
                await connection.ask_for_key(caller_metadata(request.headers), timeout_s=_KEY_LIMIT_S)
            return Response(metrics(), media_type=METRICS_TYPE)

    return router
