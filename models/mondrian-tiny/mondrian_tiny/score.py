"""Score: asks the exported model about held-out pictures through mlx-vlm and checks its facts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mondrian_tiny.answers import Answer
from mondrian_tiny.sentences import FACT_OF_SLOT, Sentence, read, split

HELD_OUT_SEED = 20_261_120


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model said, and whether it ended by itself."""

    text: str
    ended: bool


@dataclass(slots=True, kw_only=True)
class Score:
    """Counts of facts asked for and facts right, by fact, and how answers end."""

    asked: Counter[str] = field(default_factory=Counter[str])
    right: Counter[str] = field(default_factory=Counter[str])
    answers: int = 0
    ended: int = 0
    repeating: int = 0
    exact: int = 0

    def add(self, reply: Reply, expected: Answer) -> None:
        """Count one answer."""
        said = read(reply.text)
        for fact, right in compare(said, expected):
            self.asked[fact] += 1
            self.right[fact] += right
        parts = split(reply.text)
        self.answers += 1
        self.ended += reply.ended
        self.repeating += len({part.strip() for part in parts}) < len(parts)
        self.exact += said == expected

    def merge(self, other: "Score") -> None:
        """Add another score's counts."""
        self.asked += other.asked
        self.right += other.right
        self.answers += other.answers
        self.ended += other.ended
        self.repeating += other.repeating
        self.exact += other.exact

    @property
    def share(self) -> float:
        """The share of facts that are right, 0 to 1; 1 where no fact was asked for."""
        total = sum(self.asked.values())
        return sum(self.right.values()) / total if total else 1.0


def compare(said: Sequence[Sentence | None], expected: Answer) -> Iterable[tuple[str, bool]]:
    """Yield each fact with whether it was said rightly.

    Sentences are matched by template, the nth with the nth. A fact of a sentence that is missing is
    wrong, and so is each fact of a sentence too many: nothing is gained by saying less or more.
    """
    wanted, given = _numbered(expected), _numbered([each for each in said if each])
    for key, values in wanted.items():
        found = dict(given.pop(key, ()))
        for slot, word in values:
            yield FACT_OF_SLOT.get(slot, slot), found.get(slot) == word
    for values in given.values():
        for slot, _ in values:
            yield FACT_OF_SLOT.get(slot, slot), False


def _numbered(sentences: Sequence[Sentence]) -> dict[tuple[str, int], tuple[tuple[str, str], ...]]:
    seen: Counter[str] = Counter()
    numbered: dict[tuple[str, int], tuple[tuple[str, str], ...]] = {}
    for each in sentences:
        numbered[each.key, seen[each.key]] = each.values
        seen[each.key] += 1
    return numbered
