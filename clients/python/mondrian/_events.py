"""The events of an analysis, as a caller matches them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from mondrian._options import Sampling
from mondrian._results import FinishReason, Stage, Timings, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """What every event has."""

    sequence: int
    """1, 2, 3, … in each analysis, without a gap."""
    analysis: str
    """The analysis that the event belongs to, `analyses/{id}`."""
    create_time: datetime
    """When the server recorded the event; in UTC."""
    advisor: str = ""
    """The advisor whose voice this is. Empty where the analysis has one voice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(_Recorded):
    """The first event: what was resolved."""

    model: str
    """The model that will answer."""
    chosen_advisor: str = ""
    """The advisor that was chosen, or empty."""
    sampling: Sampling = field(default_factory=Sampling)
    """The sampling in force, every default and the seed filled in. Sent back with the same request, it repeats the
    text."""
    context_tokens: int = 0
    """The model's context, prompt and output together. 0 while it is not yet known."""
    queue_position: int = 0
    """The position in the queue at acceptance; 1 is next."""
    deadline_time: datetime | None = None
    """When the analysis will be ended at the latest, in UTC. None: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(_Recorded):
    """Where the analysis is. Numbers that are not yet known, or do not belong to the stage, are 0 or None."""

    stage: Stage
    message: str
    """A sentence for people, in English, such as "Generating analysis... (50 tokens, 40.0 tps)"."""
    fraction: float
    """How much of the whole analysis is done, from 0 to 1. An estimate that never falls."""
    queue_position: int = 0
    """The position in the queue, while queued; 1 is next."""
    loaded_bytes: int = 0
    """Bytes of the model loaded so far."""
    model_bytes: int = 0
    """Bytes of the model in all."""
    prompt_tokens_done: int = 0
    """Prompt tokens read so far, those from the cache included."""
    prompt_tokens_total: int = 0
    """Prompt tokens in all, those of the images included."""
    prompt_tokens_cached: int = 0
    """Prompt tokens that came from the cache."""
    output_tokens: int = 0
    """Tokens generated so far."""
    max_output_tokens: int = 0
    """The most tokens that may be generated."""
    output_tokens_per_s: float = 0.0
    """Tokens generated a second, since the first one."""
    prompt_tokens_per_s: float = 0.0
    """Prompt tokens read a second."""
    peak_memory_bytes: int = 0
    """The most memory that the engine has used."""
    elapsed_s: float = 0.0
    """Time since the analysis was accepted."""
    estimated_time_left_s: float | None = None
    """The longest that the rest will take at the present rate. None: not known."""
    continuations: int = 0
    """How often the analysis was interrupted by the end of the engine or the server, and went on where it had
    stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(_Recorded):
    """Text to append, and the tokens that it covers."""

    text: str
    """Whole characters. May be empty in the last token event, and in any where details were asked for."""
    first_index: int
    """The index, from 0, of the first token that this event covers."""
    token_count: int
    """How many tokens this event covers. 0 where only text that had been held back is released."""
    ids: tuple[int, ...] = ()
    """The vocabulary ids of the tokens, when asked for."""
    log_probabilities: tuple[float, ...] = ()
    """The natural logarithms of the tokens' probabilities, when asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(_Recorded):
    """The last event: the whole answer."""

    text: str
    """The final text: all token texts together."""
    finish_reason: FinishReason
    stop_sequence: str = ""
    """The string of `stop` that ended it, with STOP_SEQUENCE."""
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


Event: TypeAlias = Accepted | Progress | Token | Completed
"""What the loop over an analysis gives. An analysis that fails or is cancelled raises instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `ask` returns: the whole answer, and what it came from."""

    text: str
    finish_reason: FinishReason
    stop_sequence: str
    """The string of `stop` that ended it, or empty."""
    usage: Usage
    timings: Timings
    analysis: str
    """The analysis's name, `analyses/{id}`."""
    model: str
    """The model that answered."""
    sampling: Sampling
    """The sampling that was in force, the seed included."""
