"""Reporting: the lines that the server's log has about each analysis, without a word of what was asked or answered."""

import structlog

from mondrian_server.analyses.request import AnalysisRequest
from mondrian_server.events import Cancelled, Completed, Failed, Terminal

_log = structlog.stdlib.get_logger(__name__)


def log_acceptance(name: str, request: AnalysisRequest, position: int) -> None:
    """Write one line about a new analysis."""
    _log.info(
        "accepted",
        analysis=name,
        caller=request.caller,
        request_id=request.request_id,
        prompt_characters=len(request.prompt),
        images=len(request.images),
        queue_position=position,
    )


def log_end(name: str, terminal: Terminal) -> None:
    """Write one line about an end, with the error if there is one."""
    facts: dict[str, object] = {
        "output_tokens": terminal.usage.output_tokens,
        "total_s": round(terminal.timings.total_s or 0.0, 3),
    }
    match terminal:
        case Completed():
            _log.info("completed", analysis=name, finish_reason=terminal.finish_reason.name, **facts)
        case Cancelled():
            _log.info("cancelled", analysis=name, stage=terminal.stage.name, **facts)
        case Failed(error=error):
            _log.warning("failed", analysis=name, reason=error.reason, error=error.message, **facts)
