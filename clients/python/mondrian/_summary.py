"""The summary of a stream: its events, gathered into a result."""

from collections.abc import Callable

from mondrian._events import Accepted, Completed, Event, Progress, Result, Token


class Summary:
    """Gathers the events of one analysis."""

    def __init__(self, on_progress: Callable[[Progress], None] | None) -> None:
        self._on_progress = on_progress
        self._accepted: Accepted | None = None
        self._completed: Completed | None = None

    def add(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Accepted():
                self._accepted = event
            case Progress():
                if self._on_progress is not None:
                    self._on_progress(event)
            case Token():
                pass
            case Completed():
                self._completed = event

    def result(self) -> Result:
        """Return the result; the stream has ended normally, so it has been accepted and is complete."""
        assert self._accepted is not None
        assert self._completed is not None
        return Result(
            text=self._completed.text,
            finish_reason=self._completed.finish_reason,
            stop_sequence=self._completed.stop_sequence,
            usage=self._completed.usage,
            timings=self._completed.timings,
            analysis=self._completed.analysis,
            model=self._accepted.model,
            sampling=self._accepted.sampling,
        )
