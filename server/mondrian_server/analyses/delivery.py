"""Delivery: when the tokens that have come are sent."""

import re
from dataclasses import dataclass

from mondrian_server.events import Token

_SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*\s|[.!?…]["'”’)\]]*$|[。！？]|\n""")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """When collected tokens are due; see `Delivery` in `mondrian/v1/analysis.proto`."""

    interval_s: float
    max_tokens: int
    at_sentence_end: bool


class TokenBuffer:
    """Collects one analysis's tokens between two token events."""

    def __init__(self, policy: DeliveryPolicy, *, details: bool) -> None:
        """Start with the first token of the analysis.

        Args:
            policy: when tokens are due.
            details: whether tokens are due that have given no whole character yet.
        """
        self._policy = policy
        self._details = details
        self._texts: list[str] = []
        self._ids: list[int] = []
        self._log_probabilities: list[float] = []
        self._count = 0
        self._first_index = 0
        self._sent_at: float | None = None

    def restart(self, first_index: int) -> None:
        """Drop what was collected, and go on with the token of that index."""
        self._texts, self._ids, self._log_probabilities = [], [], []
        self._count = 0
        self._first_index = first_index

    def add(self, text: str, count: int, ids: tuple[int, ...], log_probabilities: tuple[float, ...]) -> None:
        """Collect tokens and the text that became certain with them."""
        if text:
            self._texts.append(text)
        self._count += count
        self._ids += ids
        self._log_probabilities += log_probabilities

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been collected since the last token event."""
        return not (self._texts or self._count)

    def due_in_s(self, now_s: float) -> float | None:
        """Return seconds until the collected tokens are due; 0 or less: now; None: there is nothing to send."""
        if not self._texts and not (self._details and self._count):
            return None
        if self._sent_at is None or self._is_full() or self._ends_a_sentence():
            return 0.0
        return self._sent_at + self._policy.interval_s - now_s

    def take(self, now_s: float) -> Token:
        """Return everything collected as one token event and start anew."""
        token = Token(
            text="".join(self._texts),
            first_index=self._first_index,
            token_count=self._count,
            ids=tuple(self._ids),
            log_probabilities=tuple(self._log_probabilities),
        )
        self._first_index += self._count
        self._count = 0
        self._sent_at = now_s
        self._texts, self._ids, self._log_probabilities = [], [], []
        return token

    def _is_full(self) -> bool:
        return 0 < self._policy.max_tokens <= self._count

    def _ends_a_sentence(self) -> bool:
        return self._policy.at_sentence_end and _SENTENCE_END.search("".join(self._texts)) is not None
