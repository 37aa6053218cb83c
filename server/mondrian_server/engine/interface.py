"""The engine as the rest of the server sees it: a state, two verbs, and somebody who is told."""

import enum
from dataclasses import dataclass
from typing import Protocol

from mondrian_server.engine.protocol import Loading, ModelDescription, Step, Submit


class EngineState(enum.Enum):
    """Whether the engine can work."""

    LOADING = "loading"
    READY = "ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """The engine now.

    model: what is known of the model; None until it was loaded once.
    loading: the newest byte counts, while loading.
    failures: how often in a row the engine has ended before it was ready.
    retry_after_s: when a retry may help, where the engine is down.
    killed_from_outside: whether somebody else killed the engine that was lost last, which is then nobody's fault.
    """

    state: EngineState
    model: ModelDescription | None = None
    loading: Loading | None = None
    failures: int = 0
    retry_after_s: float = 1.0
    killed_from_outside: bool = False
    slots_in_use: int = 0
    peak_memory_bytes: int = 0
    active_memory_bytes: int = 0


class Engine(Protocol):
    """What works on rows. A row submitted while the engine is not READY is lost with the next `engine_lost`."""

    @property
    def status(self) -> EngineStatus:
        """The engine now."""
        ...

    def submit(self, row: Submit) -> None:
        """Hand over one generation."""
        ...

    def cancel(self, row: int) -> None:
        """Tell the engine that nobody wants a row any more."""
        ...


class EngineListener(Protocol):
    """Who is told what the engine does. Calls come on the server's event loop and must not block."""

    def engine_changed(self, status: EngineStatus) -> None:
        """Hear that the state, or the progress of loading, changed."""
        ...

    def engine_step(self, step: Step) -> None:
        """Hear what a step gave."""
        ...

    def engine_lost(self) -> None:
        """Hear that the engine is gone, and every row with it."""
        ...
