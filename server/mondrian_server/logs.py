"""Logging: structured lines on stderr, for people on a terminal and as JSON elsewhere, libraries' lines included.

What is bound by `structlog.contextvars`, such as the name of the analysis, stands on each line. No line holds a prompt,
an answer or an image: nobody hands them in, tracebacks show no variables, and a value that is long or made of bytes
is cut down here.
"""

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

LogFormat = Literal["auto", "json", "console"]
OUR_LOGGERS = "mondrian_server"
MAX_VALUE_CHARACTERS = 1000
_WHOLE = frozenset({"exception"})


def configure(*, level: str, log_format: LogFormat, stream: TextIO = sys.stderr) -> None:
    """Send every line of this process to `stream`: ours from `level` on, libraries' from warnings on at the least."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(log_format, stream),
            ],
        )
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.getLogger(OUR_LOGGERS).setLevel(threshold)
    logging.captureWarnings(capture=True)


def _renderers(log_format: LogFormat, stream: TextIO) -> list[Processor]:
    console = stream.isatty() if log_format == "auto" else log_format == "console"
    if console:
        # The plain formatter, because structlog's own choice would print the variables of each frame.
        formatter = structlog.dev.plain_traceback
        return [_cut, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=formatter)]
    return [structlog.processors.format_exc_info, _cut, structlog.processors.JSONRenderer(ensure_ascii=False)]


def _cut(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Cut down values that could be somebody's prompt or image."""
    return {name: value if name in _WHOLE else _short(value) for name, value in event.items()}


def _short(value: object) -> object:
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(value, str) and len(value) > MAX_VALUE_CHARACTERS:
        return f"{value[:MAX_VALUE_CHARACTERS]}… ({len(value)} characters)"
    return value
