"""What an analysis tells: stages, counts and times, as values that know no wire format."""

import enum
from dataclasses import dataclass


class Stage(enum.IntEnum):
    """Where an analysis is. The order of the values is the order of the stages."""

    UNKNOWN = 0
    """A stage that this version of the client does not know."""
    QUEUED = 1
    LOADING_MODEL = 2
    PREPARING = 3
    ENCODING = 4
    PREFILL = 5
    GENERATING = 6
    FINALIZING = 7


class FinishReason(enum.IntEnum):
    """Why a completed analysis ended."""

    UNKNOWN = 0
    """A reason that this version of the client does not know."""
    STOP = 1
    """The model ended its turn."""
    MAX_TOKENS = 2
    """`max_tokens` or the model's context was reached."""
    STOP_SEQUENCE = 3
    """A string of `stop` appeared."""
    DEADLINE = 4
    """The timeout or the `time_limit` came; the text is what was generated in time."""


class AnalysisState(enum.IntEnum):
    """What became of an analysis."""

    UNKNOWN = 0
    """A state that this version of the client does not know."""
    ACTIVE = 1
    """It is waiting or running."""
    COMPLETED = 2
    """It gave its whole answer."""
    FAILED = 3
    """It could not go on."""
    CANCELLED = 4
    """Its caller no longer wanted it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens in and out."""

    prompt_tokens: int = 0
    """Tokens of the prompt in all: template, instructions, text and images."""
    image_tokens: int = 0
    """Of these, tokens that stand for images."""
    cached_tokens: int = 0
    """Of these, tokens whose computation came from the cache."""
    output_tokens: int = 0
    """Tokens generated, the end-of-turn token not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of an analysis went; None where it never came to that."""

    queue_s: float | None = None
    """From acceptance to the start of the work."""
    prepare_s: float | None = None
    """Decoding images and tokenising."""
    encode_s: float | None = None
    """Encoding the images."""
    prefill_s: float | None = None
    """Reading the prompt."""
    time_to_first_token_s: float | None = None
    """From acceptance to the first token."""
    decode_s: float | None = None
    """From the first token to the last."""
    total_s: float | None = None
    """From acceptance to the end."""
    prompt_tokens_per_s: float = 0.0
    """Prompt tokens read a second, those from the cache not counted."""
    output_tokens_per_s: float = 0.0
    """Tokens generated a second, from the first to the last."""
    peak_memory_bytes: int = 0
    """The most memory that the engine has used."""
