"""The catalogue of metrics: names, meanings, the values of their labels, and where in the state each reading stands.

No label holds what a caller has sent, and each has a bounded set of values.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mondrian_server.errors import Code, MondrianError
from mondrian_server.events import FinishReason, Stage
from mondrian_server.images.observing import Refusal
from mondrian_server.metrics.state import State


@dataclass(frozen=True, slots=True)
class Tally:
    """Something that is counted when it happens.

    labels: their names. values: of a single label, those that begin at 0; a series that is not there cannot rise.
    """

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """Something whose duration is measured when it is over: a histogram in seconds."""

    name: str
    meaning: str
    buckets: Sequence[float]
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of the state, read at a scrape; a name on `_total` is a counter, any other a gauge."""

    name: str
    meaning: str
    read: Callable[[State], float]


def _reasons(*codes: Code) -> tuple[str, ...]:
    """Return the reasons of the errors with these codes; of all without."""
    return tuple(kind.reason for kind in _errors(MondrianError) if not codes or kind.code in codes)


def _errors(kind: type[MondrianError]) -> Iterator[type[MondrianError]]:
    """Iterate over a tree of errors; a reason that comes twice does no harm."""
    yield kind
    for child in kind.__subclasses__():
        yield from _errors(child)


_WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_FIRST_TOKENS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 600)
_GAPS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_LIVES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
_PARTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

ACCEPTED = Tally("mondrian_analyses_accepted_total", "Analyses that were taken on.")
REFUSED = Tally(
    "mondrian_analyses_refused_total",
    "Analyses that were not taken on, for want of room or in a state that forbids it.",
    ("reason",),
    _reasons(Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE),
)
COMPLETED = Tally(
    "mondrian_analyses_completed_total",
    "Analyses that gave their answer.",
    ("finish_reason",),
    tuple(reason.name for reason in FinishReason),
)
FAILED = Tally("mondrian_analyses_failed_total", "Analyses that could not go on.", ("reason",), _reasons())
CANCELLED = Tally(
    "mondrian_analyses_cancelled_total",
    "Analyses that were no longer wanted, by the stage in which they were.",
    ("stage",),
    tuple(stage.name for stage in Stage),
)
CONTINUED = Tally("mondrian_analyses_continued_total", "Interruptions after which an analysis went on.")
PROMPT_TOKENS = Tally("mondrian_prompt_tokens_total", "Prompt tokens of ended analyses.")
CACHED_TOKENS = Tally("mondrian_prompt_tokens_cached_total", "Prompt tokens of ended analyses that a cache had.")
IMAGE_TOKENS = Tally("mondrian_image_tokens_total", "Prompt tokens of ended analyses that stand for images.")
OUTPUT_TOKENS = Tally("mondrian_output_tokens_total", "Generated tokens.")
IMAGES_REFUSED = Tally(
    "mondrian_images_refused_total", "Images that were refused.", ("reason",), tuple(why.value for why in Refusal)
)
IMAGE_RESTARTS = Tally("mondrian_image_process_restarts_total", "Image processes that were lost.")
RPCS = Tally("mondrian_rpcs_total", "Calls that have ended.", ("method", "code"))
RPCS_OPEN = Tally("mondrian_rpcs_open", "Calls that are open.", ("method",))

QUEUE = Timing("mondrian_queue_seconds", "Time from acceptance to a slot.", _WAITS)
FIRST_TOKEN = Timing("mondrian_time_to_first_token_seconds", "Time from acceptance to the first token.", _FIRST_TOKENS)
INTER_TOKEN = Timing("mondrian_inter_token_seconds", "Time from a token to the next one of the same analysis.", _GAPS)
ANALYSIS = Timing(
    "mondrian_analysis_seconds",
    "Time from acceptance to the end.",
    _LIVES,
    ("end",),
    ("completed", "failed", "cancelled"),
)
STAGE = Timing(
    "mondrian_stage_seconds",
    "Time of ended analyses in a stage.",
    _PARTS,
    ("stage",),
    ("prepare", "encode", "prefill", "decode"),
)
IMAGE_DECODE = Timing("mondrian_image_decode_seconds", "Time to decode an image.", _PARTS)
RPC = Timing("mondrian_rpc_seconds", "Time from the beginning of a call to its end.", _WAITS, ("method",))
LAG = Timing("mondrian_event_loop_lag_seconds", "How late the event loop came to what was due.", _LAGS)

READINGS: Sequence[Reading] = (
    Reading("mondrian_analyses_active", "Analyses that have not ended.", lambda s: s.active),
    Reading("mondrian_analyses_running", "Analyses that are at work in a slot.", lambda s: s.running),
    Reading("mondrian_analyses_waiting", "Analyses that wait for a slot.", lambda s: s.active - s.running),
    Reading("mondrian_analyses_waiting_limit", "The most analyses that may wait.", lambda s: s.limits.max_waiting),
    Reading("mondrian_queue_oldest_seconds", "How long the oldest waiting one has waited.", lambda s: s.oldest_wait_s),
    Reading("mondrian_watchers", "Streams that read the events of an analysis.", lambda s: s.watchers),
    Reading("mondrian_images_held_bytes", "Image files of analyses that have not started.", lambda s: s.held_bytes),
    Reading("mondrian_images_held_limit_bytes", "The most that may be held.", lambda s: s.limits.max_waiting_bytes),
    Reading("mondrian_images_waiting", "Images that wait to be decoded, or are.", lambda s: s.images_waiting),
    Reading("mondrian_engine_slots", "Slots of the engine.", lambda s: s.limits.slots),
    Reading(
        "mondrian_engine_slots_in_use", "Slots that hold a row, by the engine's account.", lambda s: s.slots_in_use
    ),
    Reading("mondrian_engine_rows_held", "Rows that the engine has not given back.", lambda s: s.rows_held),
    Reading("mondrian_engine_restarts_total", "Engines that replaced a lost one.", lambda s: s.engine_restarts),
    Reading("mondrian_engine_failed_starts", "Failed starts of the engine in a row.", lambda s: s.failed_starts),
    Reading("mondrian_engine_operation_seconds", "How long the running operation lasts.", lambda s: s.operation_s),
    Reading("mondrian_engine_active_memory_bytes", "The memory that MLX uses.", lambda s: s.active_memory_bytes),
    Reading("mondrian_engine_peak_memory_bytes", "The most memory that MLX has used.", lambda s: s.peak_memory_bytes),
    Reading("mondrian_log_available", "Whether events can be kept: 1 or 0.", lambda s: s.log_available),
    Reading("mondrian_log_file_bytes", "Size of the log's file.", lambda s: s.log_file_bytes),
    Reading("mondrian_log_kept_bytes", "What ended analyses occupy of the log.", lambda s: s.log_kept_bytes),
    Reading("mondrian_log_retention_bytes", "The most that they may occupy.", lambda s: s.limits.retention_bytes),
    Reading("mondrian_log_analyses", "Analyses in the log, active and ended.", lambda s: s.log_analyses),
)
