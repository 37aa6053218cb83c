"""The live analyses: all that have begun and not ended, and what each holds until then."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from mondrian_server.analyses.admission import Admission
from mondrian_server.analyses.analysis import Analysis
from mondrian_server.analyses.observing import Observer
from mondrian_server.analyses.reporting import log_end
from mondrian_server.analyses.scheduler import Scheduler
from mondrian_server.analyses.spec import Spec
from mondrian_server.engine.interface import Engine
from mondrian_server.events import Accepted, Event, Progress, Terminal
from mondrian_server.log.interface import EventLog, Record


class LiveAnalyses:
    """The active analyses by their names. For use on one event loop."""

    def __init__(
        self, *, log: EventLog, engine: Engine, scheduler: Scheduler, admission: Admission, observer: Observer
    ) -> None:
        """Begin with none; `admission` counts the bytes of those that have not started."""
        self._log = log
        self._engine = engine
        self._scheduler = scheduler
        self._admission = admission
        self._observer = observer
        self._by_name: dict[str, Analysis] = {}
        self.idle = asyncio.Event()
        """Set while there are none."""
        self.idle.set()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        """Return whether an analysis is active."""
        return name in self._by_name

    def __iter__(self) -> Iterator[Analysis]:
        """Iterate over them as they are now."""
        return iter(tuple(self._by_name.values()))

    def get(self, name: str) -> Analysis | None:
        """Return an analysis, or None where it is not active."""
        return self._by_name.get(name)

    def states(self, names: Iterable[str] | None = None) -> dict[str, tuple[str, Progress]]:
        """Return the text and the progress of those among the names that are active; of all without names."""
        wanted = self._by_name if names is None else names
        found = {name: self._by_name.get(name) for name in wanted}
        return {name: (analysis.text, analysis.progress()) for name, analysis in found.items() if analysis}

    def begin(self, record: Record, spec: Spec) -> int:
        """Put a new analysis into the queue, have it say so, and return its position."""
        analysis = self._made(record, spec)
        self._hold(analysis)
        position = self._scheduler.enter(analysis)
        analysis.accept(self._accepted(spec, position))
        return position

    def resume(self, record: Record, spec: Spec, events: Sequence[Event]) -> None:
        """Put an analysis into the queue that an earlier life of the server has begun, and left with these events."""
        analysis = self._made(record, spec)
        analysis.restore(events)
        self._hold(analysis)
        self._scheduler.enter(analysis)

    def release(self, analysis: Analysis) -> None:
        """Count the analysis's images no longer: it has its pictures, or has ended."""
        self._admission.hold(analysis.caller, -analysis.bytes_held)
        analysis.bytes_held = 0

    def _made(self, record: Record, spec: Spec) -> Analysis:
        return Analysis(
            record.name, spec, caller=record.caller, log=self._log, on_end=self._ended, observer=self._observer
        )

    def _hold(self, analysis: Analysis) -> None:
        self._by_name[analysis.name] = analysis
        analysis.bytes_held = analysis.spec.image_bytes
        self._admission.hold(analysis.caller, analysis.bytes_held)
        self.idle.clear()

    def _accepted(self, spec: Spec, position: int) -> Accepted:
        model, resolved = self._engine.status.model, spec.resolved
        deadline_s = spec.deadline_time_s
        return Accepted(
            model=resolved.model,
            advisor=resolved.advisor,
            sampling=resolved.sampling,
            context_tokens=model.context_tokens if model else 0,
            queue_position=position,
            deadline_time=None if deadline_s is None else datetime.fromtimestamp(deadline_s, UTC),
        )

    def _ended(self, analysis: Analysis, terminal: Terminal) -> None:
        """Let go of everything that an ended analysis held."""
        del self._by_name[analysis.name]
        self.release(analysis)
        if analysis.preparation is not None:
            analysis.preparation.cancel()
        log_end(analysis.name, terminal)
        self._observer.ended(terminal)
        self._scheduler.leave(analysis)
        if not self._by_name:
            self.idle.set()
