"""Progress: one scale and one sentence over every stage."""

from dataclasses import dataclass, field

from mondrian_server.events import Progress, Stage, Timings, Usage

_SCALE = {
    Stage.QUEUED: (0.0, 0.0),
    Stage.LOADING_MODEL: (0.0, 0.05),
    Stage.PREPARING: (0.05, 0.06),
    Stage.ENCODING: (0.06, 0.10),
    Stage.PREFILL: (0.10, 0.20),
    Stage.GENERATING: (0.20, 0.99),
    Stage.FINALIZING: (1.0, 1.0),
}
"""The part of the whole that each stage covers: what a photograph on a small model takes, roughly."""

MIN_WINDOW_S = 0.02
"""Tokens that come within less time than this have come in a burst, which tells no rate."""


@dataclass(slots=True, kw_only=True)
class Tracker:
    """What is known of one analysis's way through the stages. Times are of the monotonic clock, in seconds."""

    accepted_at: float
    images: int
    stage: Stage = Stage.QUEUED
    queue_position: int = 0
    loaded_bytes: int = 0
    model_bytes: int = 0
    downloading: bool = False
    prompt_tokens_done: int = 0
    prompt_tokens_total: int = 0
    prompt_tokens_cached: int = 0
    image_tokens: int = 0
    output_tokens: int = 0
    max_output_tokens: int = 0
    peak_memory_bytes: int = 0
    started_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    prefill_at: float | None = None
    prepare_s: float | None = None
    encode_s: float | None = None
    prefill_s: float | None = None
    continuations: int = 0
    _fraction: float = field(default=0.0)

    def enter(self, stage: Stage, now_s: float) -> bool:
        """Go on to `stage`; return whether that is a step forward."""
        if stage <= self.stage:
            return False
        self.stage = stage
        if stage >= Stage.PREPARING and self.started_at is None:
            self.started_at = now_s
        if stage is Stage.PREFILL:
            self.prefill_at = now_s
        return True

    def continue_from_here(self, *, output_tokens: int) -> None:
        """Begin the stages again after an interruption, with that many tokens kept; the fraction stays."""
        self.stage = Stage.QUEUED
        self.output_tokens = output_tokens
        self.continuations += 1
        self.prompt_tokens_done = 0
        self.prefill_at = None

    def restore(self, progress: Progress) -> None:
        """Take over what the newest progress of an earlier life of the analysis said."""
        self.stage = progress.stage
        self.prompt_tokens_total = progress.prompt_tokens_total
        self.max_output_tokens = progress.max_output_tokens
        self.continuations = progress.continuations
        self._fraction = progress.fraction

    def count_tokens(self, count: int, now_s: float) -> None:
        """Note that tokens were generated."""
        if self.first_token_at is None:
            self.first_token_at = now_s
        self.last_token_at = now_s
        self.output_tokens += count

    def snapshot(self, now_s: float, *, message: str = "", crashes: int = 0) -> Progress:
        """Return the progress event for this moment, with another sentence than the stage's own if one is given."""
        rate = self.output_tokens_per_s
        left = self.max_output_tokens - self.output_tokens
        estimating = self.stage is Stage.GENERATING and rate > 0 and left > 0
        return Progress(
            stage=self.stage,
            message=message or self._message(rate),
            fraction=self._advance(),
            queue_position=self.queue_position if self.stage is Stage.QUEUED else 0,
            loaded_bytes=self.loaded_bytes,
            model_bytes=self.model_bytes,
            prompt_tokens_done=self.prompt_tokens_done,
            prompt_tokens_total=self.prompt_tokens_total,
            prompt_tokens_cached=self.prompt_tokens_cached,
            output_tokens=self.output_tokens,
            max_output_tokens=self.max_output_tokens,
            output_tokens_per_s=rate,
            prompt_tokens_per_s=self._prompt_tokens_per_s(now_s),
            peak_memory_bytes=self.peak_memory_bytes,
            elapsed_s=now_s - self.accepted_at,
            estimated_time_left_s=left / rate if estimating else None,
            continuations=self.continuations,
            crashes=crashes,
        )

    def usage(self) -> Usage:
        """Return the tokens in and out so far."""
        return Usage(
            prompt_tokens=self.prompt_tokens_total,
            image_tokens=self.image_tokens,
            cached_tokens=self.prompt_tokens_cached,
            output_tokens=self.output_tokens,
        )

    def timings(self, now_s: float) -> Timings:
        """Return where the time went, up to this moment."""
        return Timings(
            queue_s=_between(self.accepted_at, self.started_at or now_s),
            prepare_s=self.prepare_s,
            encode_s=self.encode_s,
            prefill_s=self.prefill_s,
            time_to_first_token_s=_between(self.accepted_at, self.first_token_at),
            decode_s=_between(self.first_token_at, self.last_token_at),
            total_s=now_s - self.accepted_at,
            prompt_tokens_per_s=self._prompt_tokens_per_s(now_s),
            output_tokens_per_s=self.output_tokens_per_s,
            peak_memory_bytes=self.peak_memory_bytes,
        )

    @property
    def output_tokens_per_s(self) -> float:
        """Tokens a second from the first to the last; 0 until there are two, and time enough between them to tell."""
        decode_s = _between(self.first_token_at, self.last_token_at) or 0.0
        return (self.output_tokens - 1) / decode_s if decode_s >= MIN_WINDOW_S and self.output_tokens > 1 else 0.0

    def _prompt_tokens_per_s(self, now_s: float) -> float:
        if self.prefill_at is None:
            return 0.0
        took_s = self.prefill_s or (self.first_token_at or now_s) - self.prefill_at
        return (self.prompt_tokens_done - self.prompt_tokens_cached) / took_s if took_s > 0 else 0.0

    def _advance(self) -> float:
        """Return the overall fraction; it never falls."""
        low, high = _SCALE[self.stage]
        self._fraction = max(self._fraction, low + (high - low) * self._stage_fraction())
        return self._fraction

    def _stage_fraction(self) -> float:
        match self.stage:
            case Stage.LOADING_MODEL:
                return _ratio(self.loaded_bytes, self.model_bytes)
            case Stage.PREFILL:
                return _ratio(self.prompt_tokens_done, self.prompt_tokens_total)
            case Stage.GENERATING:
                return _ratio(self.output_tokens, self.max_output_tokens)
            case _:
                return 0.0

    def _message(self, rate: float) -> str:  # noqa: PLR0911  # one sentence for each stage
        match self.stage:
            case Stage.QUEUED:
                position = f" (position {self.queue_position})" if self.queue_position else ""
                return f"Waiting in the queue{position}..."
            case Stage.LOADING_MODEL:
                doing = "Downloading" if self.downloading else "Loading"
                return f"{doing} the model... ({_ratio(self.loaded_bytes, self.model_bytes):.0%})"
            case Stage.PREPARING:
                return f"Preparing the {self._images()}..." if self.images else "Preparing the prompt..."
            case Stage.ENCODING:
                return f"Looking at the {self._images()}..."
            case Stage.PREFILL:
                return f"Reading the prompt... ({self.prompt_tokens_done} of {self.prompt_tokens_total} tokens)"
            case Stage.GENERATING:
                speed = f", {rate:.1f} tps" if rate else ""
                return f"Generating analysis... ({self.output_tokens} tokens{speed})"
            case Stage.FINALIZING:
                return "Finishing..."

    def _images(self) -> str:
        return "image" if self.images == 1 else f"{self.images} images"


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


def _ratio(done: int, total: int) -> float:
    return min(1.0, done / total) if total > 0 else 0.0
