"""Requests: what a caller asks for, as checked values."""

from dataclasses import dataclass, field

from mondrian_server.sampling import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """When events are sent; see `Delivery` in `mondrian/v1/analysis.proto`."""

    token_interval_s: float | None = None
    max_tokens: int = 0
    at_sentence_end: bool = False
    progress_interval_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisRequest:
    """One request. `images` holds the bytes of the files as they came."""

    prompt: str = ""
    images: tuple[bytes, ...] = ()
    advisor: str = ""
    instructions: str = ""
    model: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    token_ids: bool = False
    log_probabilities: bool = False
    delivery: Delivery = field(default_factory=Delivery)
    time_limit_s: float | None = None
    request_id: str = ""
    caller: str = "local"
