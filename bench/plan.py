"""Plans: what a client is to ask of a contender, and what it saw, as values that travel between processes."""

from typing import Any

from msgspec import Struct, field


class When(Struct, frozen=True, kw_only=True):
    """A moment in the run: when each of these requests has so many tokens."""

    requests: tuple[int, ...]
    tokens: int


class Request(Struct, frozen=True, kw_only=True):
    """One request.

    at_s: when it is sent, after the beginning of the run, or after `when`.
    image: the path of an image file; empty: none.
    cancel: when its caller goes away.
    options: what only one contender knows, by its own names.
    """

    prompt: str
    image: str = ""
    max_tokens: int = 100
    sampling: dict[str, Any] = field(default_factory=dict)
    at_s: float = 0.0
    when: When | None = None
    cancel: When | None = None
    options: dict[str, Any] = field(default_factory=dict)


class Plan(Struct, frozen=True, kw_only=True):
    """A run: requests, and of whom they are asked.

    protocol: `grpc`, `gateway`, `openai` or `bare`.
    token_interval_s: how Mondrian is to collect tokens; None: as it comes.
    prefill_rows: how many prompts the bare generator reads at once.
    sped_up: whether the bare generator's linear layers are the engine's.
    kill: a process that is killed at the moment `kill_when`; 0: none.
    """

    protocol: str
    requests: tuple[Request, ...]
    address: str = ""
    model: str = ""
    token_interval_s: float | None = None
    prefill_rows: int = 1
    sped_up: bool = False
    kill: int = 0
    kill_when: When | None = None


class Seen(Struct, kw_only=True):
    """What came of one request. Times are seconds after the beginning of the run.

    arrivals: when tokens came, and how many at once.
    stages: when each stage of Mondrian was first told of.
    counts: what the contender tells of its work: prompt_tokens, cached_tokens, output_tokens, queue_s, encode_s.
    """

    sent_s: float = 0.0
    ended_s: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    cancelled_s: float | None = None
    error: str = ""

    @property
    def tokens(self) -> int:
        """The tokens that came."""
        return int(self.counts.get("output_tokens") or sum(count for _, count in self.arrivals))

    @property
    def first_s(self) -> float:
        """The time to the first token."""
        return self.arrivals[0][0] - self.sent_s


class Run(Struct, kw_only=True):
    """What a client saw in all."""

    seen: list[Seen]
    wall_s: float
    killed_s: float = 0.0
