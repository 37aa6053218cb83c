"""The card of an analysis: all that is known of it but its text, one fact a line."""

from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime

import mondrian
from mondrian_server.cli.display import human_age, human_time, summary_of
from mondrian_server.cli.wrapping import printable

_LABEL_WIDTH = 15


def card(analysis: mondrian.Analysis) -> list[str]:
    """Return the lines; what is empty is left out."""
    return [f"{label + ':':<{_LABEL_WIDTH}}{_one_line(value)}" for label, value in _facts(analysis) if value]


def _facts(analysis: mondrian.Analysis) -> Iterator[tuple[str, str]]:
    yield "Name", analysis.name
    yield "State", _state(analysis)
    yield "Created", _moment(analysis.create_time)
    yield "Ended", _moment(analysis.end_time) if analysis.end_time else ""
    yield "Model", analysis.model
    yield "Advisor", analysis.advisor
    yield "Instructions", analysis.instructions
    yield "Prompt", analysis.prompt
    yield "Images", str(analysis.image_count or "")
    yield "Sampling", _sampling(analysis.sampling)
    yield "Time limit", human_time(analysis.time_limit_s) if analysis.time_limit_s is not None else ""
    yield "Request id", analysis.request_id
    if analysis.progress is not None:
        yield "Progress", f"{analysis.progress.fraction:.0%}, {analysis.progress.message}"
        yield "Continued", _times(analysis.progress.continuations)
    if analysis.usage is not None:
        yield "Prompt tokens", str(analysis.usage.prompt_tokens or "")
    if analysis.usage is not None and analysis.timings is not None:
        yield "Result", summary_of(_finish(analysis), analysis.usage, analysis.timings)
    if analysis.error is not None and analysis.state is mondrian.AnalysisState.FAILED:
        yield "Error", f"{analysis.error.message} ({analysis.error.reason or analysis.error.code})"


def _state(analysis: mondrian.Analysis) -> str:
    return analysis.state.name.lower() + (", expired" if analysis.expired else "")


def _finish(analysis: mondrian.Analysis) -> str:
    reason = analysis.finish_reason
    return reason.name.lower().replace("_", " ") if reason is not None else ""


def _sampling(sampling: mondrian.Sampling) -> str:
    given = ((field.name, getattr(sampling, field.name)) for field in fields(sampling))
    return ", ".join(f"{name} {_number(value)}" for name, value in given if value not in (None, ()))


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _moment(time: datetime) -> str:
    age_s = (datetime.now(UTC) - time).total_seconds()
    return f"{time:%Y-%m-%d %H:%M:%S} UTC, {human_age(age_s)} ago"


def _times(count: int) -> str:
    return {0: "", 1: "once"}.get(count, f"{count} times")


def _one_line(value: str) -> str:
    return printable(" ".join(value.split()))
