"""The report: scores kept in a file, joined, and written as tables into the model card."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from mondrian_tiny.score import Score

_BEGIN: Final = "<!-- scores begin -->\n"
_END: Final = "<!-- scores end -->"

Table = dict[tuple[str, str], Score]


def save(table: Table, path: Path) -> None:
    """Write the counts of every family and question."""
    rows = [
        {"family": family, "question": question} | {each.name: getattr(score, each.name) for each in fields(score)}
        for (family, question), score in table.items()
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def load(paths: Sequence[Path]) -> Table:
    """Read and join what `save` wrote."""
    table = Table()
    for path in paths:
        for row in json.loads(path.read_text(encoding="utf-8")):
            key = (row.pop("family"), row.pop("question"))
            row |= {name: Counter(row[name]) for name in ("asked", "right")}
            table.setdefault(key, Score()).merge(Score(**row))
    return table


def markdown(table: Table, seed: int) -> str:
    """Write the tables: by question, and by fact."""
    families = _families(table)
    questions = list(dict.fromkeys(question for _, question in table))
    lines = [
        f"Held-out pictures (seed {seed}), greedy, through mlx-vlm.",
        "",
        "Facts right, by question:",
        "",
        _row("question", *families, "pictures of each", "ended by itself", "repeat a sentence"),
        _row(*["---"] * (len(families) + 4)),
    ]
    for question in questions:
        scores = [table[family, question] for family in families]
        asked = sum(score.answers for score in scores)
        ended, repeating = (
            sum(score.ended for score in scores),
            sum(score.repeating for score in scores),
        )
        shares = [_percent(score.share) for score in scores]
        each = str(min(score.answers for score in scores))
        lines.append(_row(question, *shares, each, _percent(ended / asked), str(repeating)))
    return "\n".join([*lines, _row("**all**", *_all(table), "", "", ""), "", *_by_fact(table)]) + "\n"


def _families(table: Table) -> list[str]:
    return list(dict.fromkeys(family for family, _ in table))


def _all(table: Table) -> list[str]:
    return [_percent(_merged(table, family).share) for family in _families(table)]


def _merged(table: Table, family: str) -> Score:
    merged = Score()
    for (each, _), score in table.items():
        if each == family:
            merged.merge(score)
    return merged


def _by_fact(table: Table) -> list[str]:
    families = _families(table)
    merged = {family: _merged(table, family) for family in families}
    facts = sorted({fact for score in merged.values() for fact in score.asked})
    lines = ["Facts right, by fact:", "", _row("fact", *families)]
    lines.append(_row(*["---"] * (len(families) + 1)))
    for fact in facts:
        shares = [
            _percent(score.right[fact] / score.asked[fact]) if score.asked[fact] else "-" for score in merged.values()
        ]
        lines.append(_row(fact, *shares))
    return lines


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def write_card(card: Path, report: str) -> None:
    """Replace what stands between the markers of the model card."""
    text = card.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    card.write_text(f"{before}{_BEGIN}\n{report}\n{_END}{after}", encoding="utf-8")
