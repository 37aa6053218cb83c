"""The routes of analyses, as the OpenAPI document shows them."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.gateway.analyses import Analyses
from mondrian_server.gateway.answers import JSON, content, errors, told
from mondrian_server.gateway.refusals import invalid
from mondrian_server.gateway.request_document import ANALYZE_BODY, CANCEL_BODY, CREATE_BODY, EVENTS
from mondrian_server.gateway.schemas import reference

MAX_SEQUENCE = 2**31 - 1

Id = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,64}$", description="The last part of the analysis's name.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=64,
        description="A name for this request; a UUID does well. The same key and body again give the same analysis.",
    ),
]
LastEventId = Annotated[
    str,
    Header(
        alias="Last-Event-ID",
        pattern="^[0-9]{0,10}$",
        description="The id of the last event that was seen; goes before `after`. EventSource sends it by itself.",
    ),
]
After = Annotated[
    int, Query(ge=0, le=MAX_SEQUENCE, description="The sequence of the last event that was seen; 0: none.")
]
PageSize = Annotated[int, Query(alias="pageSize", ge=0, le=1000, description="0: the server chooses.")]
PageToken = Annotated[
    str, Query(alias="pageToken", max_length=64, description="The `nextPageToken` of the page before.")
]
StateName = Annotated[
    list[str], Query(alias="states", max_length=8, description="Only analyses in these states, such as `ACTIVE`.")
]

_STATE_PREFIX = "ANALYSIS_STATE_"
_ANALYSIS = told("Analysis", "The analysis.")
_CREATED = told("Analysis", "The new analysis, or the one that the key stands for.", Location="Where it is.")
_STREAM = content("text/event-stream", EVENTS, "The events, each as soon as it is there, to the terminal one.")


def analysis_routes(analyses: Analyses) -> APIRouter:
    """Return the routes of analyses."""
    router = APIRouter(prefix="/v1", tags=["analyses"])
    _add_streams(router, analyses)
    _add_resource(router, analyses)
    return router


def _add_streams(router: APIRouter, analyses: Analyses) -> None:
    uploads = errors(408, 413, 415, 422)

    @router.post(
        "/analyses", status_code=201, responses={**uploads, 201: _CREATED}, openapi_extra={"requestBody": CREATE_BODY}
    )
    async def create_analysis(request: Request, key: Key = None) -> Response:
        """Create an analysis that runs by itself, whether or not anybody follows it."""
        return await analyses.create(request, key)

    answers = _result_or_stream()

    @router.post(
        "/analyze",
        responses={**errors(408, 413, 415, 422, 499), 200: answers},
        openapi_extra={"requestBody": ANALYZE_BODY},
    )
    async def analyze(request: Request, key: Key = None) -> Response:
        """Create an analysis and answer with its events, or, for `Accept: application/json`, with what came of it.

        A client that goes before the end has 30 s (or `disconnectGrace`) to follow it again; then it is cancelled.
        """
        return await analyses.analyze(request, key)

    @router.get(
        "/analyses/{id}/events",
        responses={**errors(404, 410), 200: _STREAM, 204: {"description": "The caller has seen the last event."}},
    )
    async def follow_analysis(request: Request, id: Id, after: After = 0, last: LastEventId = "") -> Response:  # noqa: A002 - the contract's word
        """Follow an analysis from any point: first the events that were kept, then live ones, to the terminal event."""
        return await analyses.follow(request, _name(id), _cursor(after, last))


def _add_resource(router: APIRouter, analyses: Analyses) -> None:
    @router.get("/analyses", responses={**errors(), 200: told("ListAnalysesResponse", "A page, newest first.")})
    async def list_analyses(
        request: Request,
        size: PageSize = 0,
        token: PageToken = "",
        states: StateName = [],  # noqa: B006 - FastAPI copies it
    ) -> Response:
        """List the caller's analyses, newest first."""
        message = service_pb.ListAnalysesRequest(page_size=size, page_token=token, states=map(_state, states))
        return await analyses.list(request, message)

    @router.get("/analyses/{id}", responses={**errors(404), 200: _ANALYSIS})
    async def get_analysis(request: Request, id: Id) -> Response:  # noqa: A002 - the contract's word
        """Get an analysis as it stands now."""
        return await analyses.get(request, _name(id))

    @router.delete(
        "/analyses/{id}", status_code=204, responses={**errors(404, 409), 204: {"description": "It is gone."}}
    )
    async def delete_analysis(request: Request, id: Id) -> Response:  # noqa: A002 - the contract's word
        """Delete an ended analysis with everything that is kept of it."""
        return await analyses.delete(request, _name(id))

    @router.post(
        "/analyses/{id}:cancel",
        responses={**errors(404), 200: _ANALYSIS},
        openapi_extra={"requestBody": CANCEL_BODY},
    )
    async def cancel_analysis(request: Request, id: Id) -> Response:  # noqa: A002 - the contract's word
        """Cancel an analysis. One that has ended is left as it is."""
        return await analyses.cancel(request, _name(id))


def _result_or_stream() -> dict[str, Any]:
    result = {JSON: {"schema": reference("Analysis")}}
    return {
        **_STREAM,
        "content": _STREAM["content"] | result,
        "headers": {"Content-Location": {"description": "The analysis.", "schema": {"type": "string"}}},
    }


def _name(id_: str) -> str:
    return f"analyses/{id_}"


def _cursor(after: int, last_event_id: str) -> int:
    if not last_event_id:
        return after
    sequence = int(last_event_id)
    if sequence > MAX_SEQUENCE:
        raise invalid("is not the id of an event", field="Last-Event-ID")
    return sequence


def _state(name: str) -> "pb.AnalysisState.ValueType":
    try:
        return pb.AnalysisState.Value(name if name.startswith(_STATE_PREFIX) else _STATE_PREFIX + name)
    except ValueError:
        raise invalid("there is no such state", field="states") from None
