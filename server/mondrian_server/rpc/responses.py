"""Responses: events as the bytes of a response, made once for all who watch the same analysis."""

from mondrian.v1 import analysis_service_pb2 as pb
from mondrian_server.events import Event
from mondrian_server.rpc.convert import from_event

_MOST = 4096
_MOST_BYTES = 4096


class WatchResponses:
    """The newest responses of `WatchAnalysis`. A thousand watchers at the head of ten analyses want the same ten."""

    def __init__(self) -> None:
        """Begin with none."""
        self._made: dict[tuple[str, int, bool], bytes] = {}

    def of(self, event: Event, *, with_ids: bool) -> bytes:
        """Return the response that holds an event, with the ids of tokens only if they were asked for."""
        key = (event.analysis, event.sequence, with_ids)
        made = self._made.get(key)
        if made is None:
            made = pb.WatchAnalysisResponse(event=from_event(event, with_ids=with_ids)).SerializeToString()
            if len(made) <= _MOST_BYTES:
                self._made[key] = made
                if len(self._made) > _MOST:
                    del self._made[next(iter(self._made))]
        return made
