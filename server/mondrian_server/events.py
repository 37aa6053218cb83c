"""Events: what an analysis tells its watchers, as values that know no wire format."""

import enum
from datetime import datetime
from typing import TypeAlias

from msgspec import Struct, field

from mondrian_server.errors import MondrianError
from mondrian_server.sampling import Sampling


class Stage(enum.IntEnum):
    """Where an analysis is. The order of the values is the order of the stages."""

    QUEUED = 1
    LOADING_MODEL = 2
    PREPARING = 3
    ENCODING = 4
    PREFILL = 5
    GENERATING = 6
    FINALIZING = 7


class FinishReason(enum.IntEnum):
    """Why a completed analysis ended."""

    STOP = 1
    MAX_TOKENS = 2
    STOP_SEQUENCE = 3
    DEADLINE = 4


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens in and out; `output_tokens` leaves out the end-of-turn token."""

    prompt_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Timings(Struct, frozen=True, kw_only=True):
    """Where the time went, in seconds since acceptance or of a part; None where it never came to that."""

    queue_s: float | None = None
    prepare_s: float | None = None
    encode_s: float | None = None
    prefill_s: float | None = None
    time_to_first_token_s: float | None = None
    decode_s: float | None = None
    total_s: float | None = None
    prompt_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    peak_memory_bytes: int = 0


class Accepted(Struct, frozen=True, kw_only=True, tag=True):
    """What was resolved when the analysis was accepted. Always sequence 1."""

    model: str
    advisor: str
    sampling: Sampling
    context_tokens: int
    queue_position: int
    deadline_time: datetime | None = None


class Progress(Struct, frozen=True, kw_only=True, tag=True):
    """Where the analysis is. Numbers that are not yet known are 0 or None.

    crashes: where it tells of a continuation, how often the engine has died over the analysis since its last token. It
    is for the server's next start, and not for callers.
    """

    stage: Stage
    message: str
    fraction: float
    queue_position: int = 0
    loaded_bytes: int = 0
    model_bytes: int = 0
    prompt_tokens_done: int = 0
    prompt_tokens_total: int = 0
    prompt_tokens_cached: int = 0
    output_tokens: int = 0
    max_output_tokens: int = 0
    output_tokens_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    peak_memory_bytes: int = 0
    elapsed_s: float = 0.0
    estimated_time_left_s: float | None = None
    continuations: int = 0
    crashes: int = 0


class Token(Struct, frozen=True, kw_only=True, tag=True):
    """Text to append, and the tokens that it covers."""

    text: str
    first_index: int
    token_count: int
    ids: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()


class Completed(Struct, frozen=True, kw_only=True, tag=True):
    """The end of an analysis that gave its whole answer."""

    text: str
    finish_reason: FinishReason
    stop_sequence: str = ""
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """The end of an analysis that could not go on."""

    error: MondrianError
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


class Cancelled(Struct, frozen=True, kw_only=True, tag=True):
    """The end of an analysis that its caller no longer wanted."""

    stage: Stage
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


Terminal: TypeAlias = Completed | Failed | Cancelled
Payload: TypeAlias = Accepted | Progress | Token | Terminal


class Event(Struct, frozen=True, kw_only=True):
    """One entry of an analysis's log. Sequences are 1, 2, 3, … in each analysis."""

    sequence: int
    analysis: str
    create_time: datetime
    payload: Payload
    advisor: str = ""

    @property
    def is_terminal(self) -> bool:
        """Whether the stream ends with this event."""
        return isinstance(self.payload, Completed | Failed | Cancelled)
