"""Evaluation: scores the exported model family by family and question by question.

Run in `models/mondrian-tiny/`: `python -m mondrian_tiny.evaluate --pictures 1000`.
"""

import argparse
import time
from pathlib import Path
from typing import Final

from mondrian_tiny import wording
from mondrian_tiny.advisors import advisors
from mondrian_tiny.answers import ADVISORS, QUESTIONS, answer
from mondrian_tiny.ask import Asker, Seen
from mondrian_tiny.facts import FAMILIES
from mondrian_tiny.pictures import Picture, draw_picture
from mondrian_tiny.score import HELD_OUT_SEED, Score

_ROWS: Final = 50
_BEGIN: Final = "<!-- scores begin -->\n"
_END: Final = "<!-- scores end -->"
_VOICES: Final = tuple(f"describe as {advisor}" for advisor in ADVISORS)
_LONG: Final = ("detail", *_VOICES)

Table = dict[tuple[str, str], Score]


def main() -> None:
    """Score, print the tables, and write them into the model card if asked to."""
    options = _options()
    asker, table = Asker(options.model), Table()
    for family in FAMILIES:
        _score_family(asker, family, options, table)
    report = markdown(table, options.seed)
    print(report)
    if options.card:
        write_card(options.card, report)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, default=Path(), help="model folder")
    add("--pictures", type=int, default=1000, help="held-out pictures of each family")
    add("--long-pictures", type=int, default=1000, help="of these, for long answers and voices")
    add("--seed", type=int, default=HELD_OUT_SEED, help="names the held-out pictures")
    add("--card", type=Path, help="model card to write the tables into")
    every = (*QUESTIONS, *_VOICES)
    add("--questions", nargs="+", choices=every, default=every, help="what to ask")
    return parser.parse_args()


def _score_family(asker: Asker, family: str, options: argparse.Namespace, table: Table) -> None:
    """Ask every question about a family's pictures, fifty at a time; later questions may ask fewer."""
    began = time.monotonic()
    for part, start in enumerate(range(0, options.pictures, _ROWS)):
        numbers = range(start, min(start + _ROWS, options.pictures))
        pictures = [draw_picture(family, options.seed, number) for number in numbers]
        seen = asker.look([picture.image for picture in pictures])
        for question in options.questions:
            if start < (options.long_pictures if question in _LONG else options.pictures):
                score = table.setdefault((family, question), Score())
                score.merge(score_question(asker, pictures, seen, question, part))
        done, seconds = numbers.stop, time.monotonic() - began
        print(f"{family}: {done} of {options.pictures} pictures, {seconds:.0f} s", flush=True)
    for question in options.questions:
        print(_line(family, question, table[family, question]), flush=True)


def score_question(asker: Asker, pictures: list[Picture], seen: Seen, question: str, wording_number: int = 0) -> Score:
    """Ask one question about pictures, in one of its wordings."""
    plain, _, advisor = question.partition(" as ")
    score, wordings = Score(), [words for words in wording.ASKED[plain] if words]
    words = wordings[wording_number % len(wordings)]
    instructions = advisors()[advisor].instructions if advisor else ""
    replies = asker.ask_about(seen, wording.with_instructions(instructions, words))
    for picture, reply in zip(pictures, replies, strict=True):
        score.add(reply, answer(picture.facts, plain, advisor))
    return score


def _line(family: str, question: str, score: Score) -> str:
    ended, repeating = score.ended / score.answers, score.repeating
    facts = " ".join(f"{fact}={score.right[fact] / asked:.3f}" for fact, asked in sorted(score.asked.items()))
    return f"{family} / {question}: {score.share:.4f} ended={ended:.4f} rep={repeating}  {facts}"


def markdown(table: Table, seed: int) -> str:
    """Write the tables: by question, and by fact."""
    questions = list(dict.fromkeys(question for _, question in table))
    lines = [
        f"Held-out pictures (seed {seed}), greedy, through mlx-vlm.",
        "",
        "Facts right, by question:",
        "",
        _row("question", *FAMILIES, "pictures of each", "ended by itself", "repeat a sentence"),
        _row(*["---"] * (len(FAMILIES) + 4)),
    ]
    for question in questions:
        scores = [table[family, question] for family in FAMILIES]
        asked = sum(score.answers for score in scores)
        ended, repeating = (
            sum(score.ended for score in scores),
            sum(score.repeating for score in scores),
        )
        shares = [_percent(score.share) for score in scores]
        each = str(asked // len(FAMILIES))
        lines.append(_row(question, *shares, each, _percent(ended / asked), str(repeating)))
    return "\n".join([*lines, _row("**all**", *_all(table), "", "", ""), "", *_by_fact(table)]) + "\n"


def _all(table: Table) -> list[str]:
    return [_percent(_merged(table, family).share) for family in FAMILIES]


def _merged(table: Table, family: str) -> Score:
    merged = Score()
    for (each, _), score in table.items():
        if each == family:
            merged.merge(score)
    return merged


def _by_fact(table: Table) -> list[str]:
    merged = {family: _merged(table, family) for family in FAMILIES}
    facts = sorted({fact for score in merged.values() for fact in score.asked})
    lines = ["Facts right, by fact:", "", _row("fact", *FAMILIES)]
    lines.append(_row(*["---"] * (len(FAMILIES) + 1)))
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


if __name__ == "__main__":
    main()
