"""Recovery: takes up the active analyses that an earlier life of the server left in the log."""

import contextlib

import structlog

from mondrian_server import errors
from mondrian_server.analyses.live import LiveAnalyses
from mondrian_server.analyses.observing import Observer
from mondrian_server.analyses.spec import decode_spec
from mondrian_server.events import Event, Failed
from mondrian_server.log.interface import EventLog, Record

_log = structlog.stdlib.get_logger(__name__)


class Recovery:
    """Takes up one record after the other."""

    def __init__(self, log: EventLog, live: LiveAnalyses, observer: Observer) -> None:
        """Take up what the log holds among the live analyses."""
        self._log = log
        self._live = live
        self._observer = observer

    async def take_up(self, record: Record) -> None:
        """Let an analysis go on after its last event, or begin, or end with an error where neither is possible."""
        try:
            await self._take_up(record)
        except Exception:
            _log.exception("an analysis could not be taken up", analysis=record.name)
            self._give_up(record.name)

    async def _take_up(self, record: Record) -> None:
        spec = decode_spec(record.spec)
        events: list[Event] = []
        while page := await self._log.read(record.name, len(events)):
            events += page
        if events:
            self._live.resume(record, spec, events)
        else:
            self._live.begin(record, spec)

    def _give_up(self, name: str) -> None:
        """End an analysis that cannot be taken up, so that nobody waits for it for ever."""
        if self._log.available:  # If not, it may be the log's fault, and the next start tries again.
            error = errors.InternalError("the analysis could not be continued; see the server's log")
            with contextlib.suppress(KeyError, ValueError):
                self._log.append(name, Failed(error=error))
                self._observer.ended(Failed(error=error))
