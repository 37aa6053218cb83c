"""AnalysisService over the analyses."""

import contextlib
from typing import cast

import structlog

from mondrian.v1 import analysis_service_pb2 as pb
from mondrian_server.analyses.service import AnalysesService
from mondrian_server.events import Cancelled, Event, Failed
from mondrian_server.rpc.convert import from_event, to_request
from mondrian_server.rpc.registration import Context, StatusError
from mondrian_server.rpc.status import cancelled_status

LOCAL_CALLER = "local"
"""Who everybody is on a server without keys, which listens on loopback only."""

_NO_DEADLINE_S = 1e8
"""grpc tells a call without a deadline by a time that is centuries away."""


class AnalysisServicer:
    """Serves `mondrian.v1.AnalysisService`."""

    def __init__(self, analyses: AnalysesService) -> None:
        """Serve these analyses."""
        self._analyses = analyses

    async def Analyze(self, request: pb.AnalyzeRequest, context: Context) -> None:  # noqa: N802  # gRPC's name
        """Create an analysis and stream it; whatever ends the call early cancels it."""
        self._analyses.check_room(request.ByteSize() if request.config.images else 0)
        values = to_request(request.config, request_id=request.request_id, caller=LOCAL_CALLER)
        request.Clear()  # The images live on in `values` alone, and go when they are decoded.
        name = self._analyses.accept(values, deadline_in_s=_deadline_in_s(context))
        del values
        # Each call is a task with a context of its own; whatever it logs from here on carries the name.
        structlog.contextvars.bind_contextvars(analysis=name)
        try:
            async with contextlib.aclosing(self._analyses.watch(name)) as groups:
                async for events in groups:
                    for event in events:
                        await context.write(pb.AnalyzeResponse(event=from_event(event)))
                    _raise_if_not_completed(events[-1])
        finally:
            self._analyses.forget(name)


def _deadline_in_s(context: Context) -> float | None:
    """Return the seconds to the call's deadline; None where it has none."""
    # types-grpcio promises a float, but grpc 1.85 returns None for a call without a deadline.
    remaining_s = cast("float | None", context.time_remaining())
    return None if remaining_s is None or remaining_s > _NO_DEADLINE_S else remaining_s


def _raise_if_not_completed(last: Event) -> None:
    """End the call with the status that matches a terminal event."""
    match last.payload:
        case Failed(error=error):
            raise error
        case Cancelled():
            raise StatusError(cancelled_status())
        case _:
            pass
