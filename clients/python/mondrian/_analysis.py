"""The analysis as a resource: what was asked for, and what became of it."""

from dataclasses import dataclass, field
from datetime import datetime

from mondrian._errors import MondrianError
from mondrian._events import Progress
from mondrian._options import Sampling
from mondrian._results import AnalysisState, FinishReason, Timings, Usage
from mondrian.v1 import analysis_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """An analysis as it stood when the server was asked. What is not yet known, or has expired, is empty or None."""

    name: str
    """The resource name, `analyses/{id}`."""
    state: AnalysisState
    """What became of it."""
    create_time: datetime
    """When it was accepted; in UTC."""
    end_time: datetime | None = None
    """When it ended. None while it is active."""
    request_id: str = ""
    """The caller's name for the request, or empty."""
    expired: bool = False
    """Its events, its text and what was asked for have been deleted because of their age or size."""

    model: str = ""
    """The model that answers."""
    advisor: str = ""
    """The advisor that was chosen, or empty."""
    instructions: str = ""
    """The caller's own instructions."""
    prompt: str = ""
    """The question or task."""
    image_count: int = 0
    """The number of images."""
    sampling: Sampling = field(default_factory=Sampling)
    """The sampling in force, every default and the seed filled in."""
    time_limit_s: float | None = None
    """The longest that it may take, as the request says. None: no limit."""

    progress: Progress | None = None
    """Where it is, while it is active. Not an event of its own: the sequence is 0."""
    text: str = ""
    """The text so far; the final one where it is complete."""
    finish_reason: FinishReason | None = None
    """Why it ended, where it is complete."""
    stop_sequence: str = ""
    """The string of `stop` that ended it, or empty."""
    usage: Usage | None = None
    """Tokens in and out. None while it is active."""
    timings: Timings | None = None
    """Where the time went. None while it is active."""
    error: MondrianError | None = field(default=None, compare=False)
    """What a loop over it raises: the failure, or `AnalysisCancelled`. None where it is active or complete."""
    message: analysis_pb2.Analysis = field(repr=False, compare=False, default_factory=analysis_pb2.Analysis)
    """The wire's message, with all that is not told above."""
