"""Wire analyses to values."""

from datetime import timedelta
from typing import TypedDict

from mondrian._analysis import Analysis
from mondrian._convert import (
    Recorded,
    finish_reason_from_wire,
    progress_from_wire,
    sampling_from_wire,
    seconds_from_wire,
    state_from_wire,
    time_from_wire,
    timings_from_wire,
    usage_from_wire,
)
from mondrian._errors import MondrianError
from mondrian._events import Progress
from mondrian._results import FinishReason, Timings, Usage
from mondrian._status import from_cancelled, from_failed
from mondrian.v1 import analysis_pb2


class _Ending(TypedDict, total=False):
    finish_reason: FinishReason
    stop_sequence: str
    usage: Usage | None
    timings: Timings | None
    error: MondrianError


def analysis_from_wire(message: analysis_pb2.Analysis) -> Analysis:
    """Return the analysis."""
    config = message.config
    return Analysis(
        name=message.name,
        state=state_from_wire(message.state),
        create_time=time_from_wire(message.create_time),
        end_time=time_from_wire(message.end_time) if message.HasField("end_time") else None,
        request_id=message.request_id,
        expired=message.expired,
        model=config.model,
        advisor=config.advisor,
        instructions=config.instructions,
        prompt=config.prompt,
        image_count=message.image_count,
        sampling=sampling_from_wire(config.sampling),
        time_limit_s=seconds_from_wire(config.time_limit) if config.HasField("time_limit") else None,
        progress=_progress(message) if message.HasField("progress") else None,
        text=message.text,
        message=message,
        **_ending(message),
    )


def _progress(message: analysis_pb2.Analysis) -> Progress:
    at = time_from_wire(message.create_time) + timedelta(seconds=seconds_from_wire(message.progress.elapsed))
    return progress_from_wire(message.progress, Recorded(sequence=0, analysis=message.name, create_time=at, advisor=""))


def _ending(message: analysis_pb2.Analysis) -> _Ending:
    match message.WhichOneof("result"):
        case "completed":
            completed = message.completed
            return _Ending(
                finish_reason=finish_reason_from_wire(completed.finish_reason),
                stop_sequence=completed.stop_sequence,
                usage=usage_from_wire(completed.usage),
                timings=timings_from_wire(completed.timings),
            )
        case "failed":
            error = from_failed(message.failed)
        case "cancelled":
            error = from_cancelled(message.cancelled)
        case _:
            return _Ending()
    error.analysis = message.name
    return _Ending(error=error, usage=error.usage, timings=error.timings)
