"""State: how the service stands at the moment of a scrape, read from its parts."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from mondrian_server.analyses.scheduler import Scheduler
from mondrian_server.analyses.service import AnalysesService
from mondrian_server.engine.interface import EngineState
from mondrian_server.engine.protocol import IDLE
from mondrian_server.engine.supervisor import EngineSupervisor
from mondrian_server.images.decoder import ImageDecoder
from mondrian_server.log.interface import EventLog
from mondrian_server.metrics.resources import ProcessUse, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds that the state is to be held against."""

    slots: int
    max_waiting: int
    max_waiting_bytes: int
    retention_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How the service stands. `limits` are fixed; `processes` and the log's sizes are some seconds old."""

    limits: Limits
    active: int
    running: int
    oldest_wait_s: float
    watchers: int
    held_bytes: int
    images_waiting: int
    engine_state: EngineState
    engine_restarts: int
    failed_starts: int
    operation_s: float
    slots_in_use: int
    rows_held: int
    active_memory_bytes: int
    peak_memory_bytes: int
    architecture: str
    log_available: bool
    log_file_bytes: int
    log_kept_bytes: int
    log_analyses: int
    processes: Mapping[str, ProcessUse]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a running service. For use on its event loop."""

    analyses: AnalysesService
    scheduler: Scheduler
    engine: EngineSupervisor
    decoder: ImageDecoder
    log: EventLog
    resources: Resources
    limits: Limits

    def read(self) -> State:
        """Return how they stand; touches neither disk nor other processes."""
        status, beat, size = self.engine.status, self.engine.beat, self.resources.log_size
        return State(
            limits=self.limits,
            active=self.analyses.live,
            running=self.scheduler.running,
            oldest_wait_s=self._oldest_wait_s(),
            watchers=self.analyses.watchers,
            held_bytes=self.analyses.bytes_held,
            images_waiting=self.decoder.waiting,
            engine_state=status.state,
            engine_restarts=self.engine.restarts,
            failed_starts=status.failures,
            operation_s=0.0 if beat.operation == IDLE else beat.operation_s,
            slots_in_use=status.slots_in_use,
            rows_held=self.scheduler.rows_held,
            active_memory_bytes=status.active_memory_bytes,
            peak_memory_bytes=status.peak_memory_bytes,
            architecture=status.model.architecture if status.model else "",
            log_available=self.log.available,
            log_file_bytes=size.file_bytes,
            log_kept_bytes=size.kept_bytes,
            log_analyses=size.analyses,
            processes=self.resources.processes,
        )

    def _oldest_wait_s(self) -> float:
        oldest = self.scheduler.oldest
        if oldest is None:
            return 0.0
        return asyncio.get_running_loop().time() - oldest.tracker.accepted_at
