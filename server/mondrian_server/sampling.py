"""Sampling: how tokens are chosen, as asked for and as resolved."""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling as asked for; None leaves a field to the next default.

    Ranges stand in `mondrian/v1/analysis.proto`, message `Sampling`.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def over(self, defaults: "Sampling") -> "Sampling":
        """Return these settings, with `defaults` where a field is unset (for `stop`: empty)."""
        unset = [f.name for f in fields(self) if getattr(self, f.name) in (None, ())]
        return replace(self, **{name: getattr(defaults, name) for name in unset})


NEUTRAL = Sampling(
    min_tokens=0,
    temperature=0.0,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repetition_penalty=1.0,
)
"""The server's own defaults: greedy, nothing filtered. `max_tokens` is the operator's, the seed drawn each time."""
