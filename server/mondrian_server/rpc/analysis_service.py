"""AnalysisService over the analyses."""

from contextlib import aclosing

import structlog

from mondrian.v1 import analysis_service_pb2 as pb
from mondrian_server.analyses.service import AnalysesService
from mondrian_server.errors import InvalidRequest
from mondrian_server.events import Cancelled, Event, Failed
from mondrian_server.log.interface import State
from mondrian_server.rpc.authentication import caller
from mondrian_server.rpc.convert import from_event, from_view, to_request, to_seconds
from mondrian_server.rpc.deadlines import deadline
from mondrian_server.rpc.door import Door
from mondrian_server.rpc.paging import checked_page_size, to_position
from mondrian_server.rpc.reception import Context
from mondrian_server.rpc.registration import StatusError
from mondrian_server.rpc.responses import WatchResponses
from mondrian_server.rpc.status import cancelled_status

MAX_DISCONNECT_GRACE_S = 3600.0
DEFAULT_PAGE_SIZE = 50


class AnalysisServicer:
    """Serves `mondrian.v1.AnalysisService`."""

    def __init__(self, analyses: AnalysesService, *, shared: bool) -> None:
        """Serve these analyses; `shared`: there may be several callers."""
        self._analyses = analyses
        self._watch_responses = WatchResponses()
        self.door = Door(lambda: analyses.refusal(0, caller()), analyses.refuse, caller=caller, shared=shared)
        """What is asked before the request of a new analysis is received."""

    async def Analyze(self, request: pb.AnalyzeRequest, context: Context) -> None:  # noqa: N802  # gRPC's name
        """Create an analysis and stream it; when the call has gone, let the analysis go."""
        grace_s = _grace_s(request)
        with_ids = request.config.token_detail.ids
        name = await self._create(request, deadline_in_s=deadline().left_s, disconnect_grace_s=grace_s)
        del request  # Its images are in the log now; the stream may last for hours.
        # Each call is a task with a context of its own; whatever it logs from here on carries the name.
        structlog.contextvars.bind_contextvars(analysis=name)
        try:
            async with aclosing(self._analyses.watch(name, caller())) as groups:
                async for events in groups:
                    for event in events:
                        await context.write(pb.AnalyzeResponse(event=from_event(event, with_ids=with_ids)))
                    _raise_if_not_completed(events[-1])
        finally:
            self._analyses.let_go(name)

    async def CreateAnalysis(  # noqa: N802  # gRPC's name
        self, request: pb.CreateAnalysisRequest, _: Context
    ) -> pb.CreateAnalysisResponse:
        """Create an analysis that outlives the call."""
        name = await self._create(request)
        return pb.CreateAnalysisResponse(analysis=from_view(await self._analyses.get(name, caller())))

    async def WatchAnalysis(  # noqa: N802  # gRPC's name
        self, request: pb.WatchAnalysisRequest, context: Context
    ) -> None:
        """Stream the events after a sequence."""
        if request.after_sequence < 0:
            raise InvalidRequest("after_sequence is negative", field="after_sequence")
        view = await self._analyses.get(request.name, caller())
        with_ids = view.wants_ids
        async with aclosing(self._analyses.watch(request.name, caller(), request.after_sequence)) as groups:
            async for events in groups:
                for event in events:
                    await context.write(self._watch_responses.of(event, with_ids=with_ids))

    async def GetAnalysis(  # noqa: N802  # gRPC's name
        self, request: pb.GetAnalysisRequest, _: Context
    ) -> pb.GetAnalysisResponse:
        """Get an analysis."""
        return pb.GetAnalysisResponse(analysis=from_view(await self._analyses.get(request.name, caller())))

    async def ListAnalyses(  # noqa: N802  # gRPC's name
        self, request: pb.ListAnalysesRequest, _: Context
    ) -> pb.ListAnalysesResponse:
        """List analyses; a page's token is the number of its last one, which may be deleted in between."""
        size = checked_page_size(request.page_size, DEFAULT_PAGE_SIZE)
        states = [_state(value) for value in request.states]
        views = await self._analyses.list(
            caller(), states, before_number=to_position(request.page_token), limit=size + 1
        )
        more = len(views) > size
        return pb.ListAnalysesResponse(
            analyses=[from_view(view) for view in views[:size]],
            next_page_token=str(views[size - 1].record.number) if more else "",
        )

    async def CancelAnalysis(  # noqa: N802  # gRPC's name
        self, request: pb.CancelAnalysisRequest, _: Context
    ) -> pb.CancelAnalysisResponse:
        """Cancel an analysis."""
        return pb.CancelAnalysisResponse(analysis=from_view(await self._analyses.cancel(request.name, caller())))

    async def DeleteAnalysis(  # noqa: N802  # gRPC's name
        self, request: pb.DeleteAnalysisRequest, _: Context
    ) -> pb.DeleteAnalysisResponse:
        """Delete an ended analysis."""
        await self._analyses.delete(request.name, caller())
        return pb.DeleteAnalysisResponse()

    async def _create(
        self,
        request: pb.AnalyzeRequest | pb.CreateAnalysisRequest,
        *,
        deadline_in_s: float | None = None,
        disconnect_grace_s: float | None = None,
    ) -> str:
        # A repeated request is answered also when no new one would be taken: only `create` can tell.
        if not request.request_id:
            self._analyses.check_room(request.ByteSize() if request.config.images else 0, caller())
        values = to_request(request.config, request_id=request.request_id, caller=caller())
        return await self._analyses.create(values, deadline_in_s=deadline_in_s, disconnect_grace_s=disconnect_grace_s)


def _grace_s(request: pb.AnalyzeRequest) -> float:
    grace_s = to_seconds(request, "disconnect_grace", "disconnect_grace") or 0.0
    if not 0 <= grace_s <= MAX_DISCONNECT_GRACE_S:
        raise InvalidRequest("disconnect_grace must be from 0 s to one hour", field="disconnect_grace")
    return grace_s


def _state(value: int) -> State:
    try:
        return State(value)
    except ValueError as error:
        raise InvalidRequest("there is no such state", field="states") from error


def _raise_if_not_completed(last: Event) -> None:
    """End the call with the status that matches a terminal event."""
    match last.payload:
        case Failed(error=error):
            raise error
        case Cancelled():
            raise StatusError(cancelled_status())
        case _:
            pass
