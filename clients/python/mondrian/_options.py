"""What a caller can ask for: sampling, token details and delivery."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. A field that is None takes the advisor's default, then the server's."""

    max_tokens: int | None = None
    """The most tokens to generate, at least 1."""
    min_tokens: int | None = None
    """Tokens to generate before the model may end its turn or a stop string counts."""
    temperature: float | None = None
    """From 0 (greedy: always the likeliest token) to 2."""
    top_p: float | None = None
    """Keep the likeliest tokens whose probabilities first sum to this. In (0, 1]; 1 keeps all."""
    top_k: int | None = None
    """Keep only this many of the likeliest tokens. 0 keeps all."""
    min_p: float | None = None
    """Keep the tokens at least this fraction as probable as the likeliest one. In [0, 1]; 0 keeps all."""
    repetition_penalty: float | None = None
    """Divides the logits of tokens already in prompt or output. In (0, 2]; 1 changes nothing."""
    seed: int | None = None
    """From 0 to 2^32 - 1. The same seed and request give the same text; None lets the server draw one."""
    stop: tuple[str, ...] = ()
    """Strings that end the text where they first appear. At most 8 of 256 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDetail:
    """What to tell about each token, besides its text."""

    ids: bool = False
    """Send the vocabulary ids of the tokens."""
    log_probabilities: bool = False
    """Send the natural logarithm of each token's probability, before temperature and filters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """When events are sent. The first token is always sent at once."""

    token_interval_s: float | None = None
    """Collect tokens for this long before sending them, 0 to 60. None: 0.1; 0 sends every engine step."""
    max_tokens: int = 0
    """Send as soon as this many tokens have been collected. 0: no such limit."""
    at_sentence_end: bool = False
    """Send at each end of a sentence too."""
    progress_interval_s: float | None = None
    """Send progress at this interval of the wall clock, 0.1 to 60. None: 5."""


class AnalyzeOptions(TypedDict, total=False):
    """The keyword arguments that `analyze`, `ask` and `create` share, in both clients."""

    advisor: str
    """The advisor whose instructions and sampling defaults apply, such as `ansel`. Excludes `instructions`."""
    instructions: str
    """Your own instructions; they stand after the images and before the prompt."""
    model: str
    """The model, such as `models/mondrian-tiny`. Empty: the server's default."""
    sampling: Sampling
    """How tokens are chosen. The arguments below override its fields."""
    max_tokens: int | None
    """See `Sampling.max_tokens`; so on to `stop`."""
    min_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    stop: str | Sequence[str]
    """One string or several."""
    token_detail: TokenDetail
    """What to tell about each token, besides its text."""
    delivery: Delivery
    """When events are sent."""
    time_limit: float | None
    """The longest that the analysis may take, in seconds, queue included. When it is over, the text that is there
    completes with `FinishReason.DEADLINE`; where there is none, the call raises `DeadlineExceeded`."""
    request_id: str
    """A name for this request, at most 64 characters; by default one is drawn. The same name with the same request
    leads to the first one's analysis; with another request it raises `RequestIdReused`."""
