"""The office: an analyses service with two slots over stand-ins."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.analyses.resolution import Defaults
from mondrian_server.analyses.scheduler import Scheduler
from mondrian_server.analyses.service import AdmissionLimits, AnalysesService
from mondrian_server.engine.interface import EngineState
from mondrian_server.events import Event, Payload, Token
from mondrian_server.log.memory import MemoryLog
from tests.unit.stand_ins import ADVISORS, GatedDecoder, ScriptedEngine

Kind = TypeVar("Kind", bound=Payload)


class FaultyLog(MemoryLog):
    """A log that breaks when the text `break` is to be kept."""

    def append(self, analysis: str, payload: Payload) -> Event:
        """Raise for that text."""
        if isinstance(payload, Token) and payload.text == "break":
            raise RuntimeError("the disk is full")
        return super().append(analysis, payload)


class Office:
    """A service with two slots over stand-ins."""

    def __init__(
        self,
        state: EngineState = EngineState.READY,
        *,
        decoder: GatedDecoder | None = None,
        log: MemoryLog | None = None,
        lookahead: int = 0,
        **limits: float,
    ) -> None:
        """Begin with nothing to do."""
        self.engine = ScriptedEngine(state)
        self.scheduler = Scheduler(self.engine, slots=2, lookahead=lookahead)
        self.decoder = decoder or GatedDecoder()
        self.log = MemoryLog() if log is None else log
        self.service = AnalysesService(
            limits=replace(AdmissionLimits(max_waiting=3, max_waiting_bytes=1000), **limits),
            defaults=Defaults(model="tiny", token_interval_s=0.0, progress_interval_s=60.0),
            engine=self.engine,
            scheduler=self.scheduler,
            decoder=self.decoder,
            advisors=ADVISORS,
            log=self.log,
        )
        self.engine.listener = self.service

    def accept(self, prompt: str = "?", *images: bytes, deadline_in_s: float | None = None, **changes: object) -> str:
        """Have a request accepted."""
        request = replace(AnalysisRequest(prompt=prompt, images=images), **changes)
        return self.service.accept(request, deadline_in_s=deadline_in_s)

    def events(self, name: str) -> Sequence[Event]:
        """Return all events of an analysis."""
        return self.log.read(name, 0)

    def last(self, name: str, kind: type[Kind]) -> Kind:
        """Return the newest event, which must be of a kind."""
        payload = self.events(name)[-1].payload
        assert isinstance(payload, kind), payload
        return payload

    def holds_nothing(self) -> bool:
        """Return whether no analysis, row, place, byte or decoding is left."""
        return (
            self.service.live,
            self.scheduler.waiting,
            self.scheduler.rows_held,
            self.service.bytes_held,
            self.decoder.decoding,
        ) == (0, 0, 0, 0, 0)
