"""Evaluation: scores the exported model family by family and question by question.

Run in `models/mondrian-tiny/`: `python -m mondrian_tiny.evaluate --pictures 1000`.
"""

import argparse
import time
from pathlib import Path
from typing import Final

from mondrian_tiny import wording
from mondrian_tiny.advisors import advisors
from mondrian_tiny.answers import ADVISORS, QUESTIONS, Answer, answer
from mondrian_tiny.ask import Asker, Seen
from mondrian_tiny.facts import FAMILIES, Facts
from mondrian_tiny.pictures import draw_picture
from mondrian_tiny.report import Table, load, markdown, save, write_card
from mondrian_tiny.score import HELD_OUT_SEED, Reply, Score

_ROWS: Final = 50
_VOICES: Final = tuple(f"describe as {advisor}" for advisor in ADVISORS)
_LONG: Final = ("detail", *_VOICES)


def main() -> None:
    """Score, print the tables, and write them into the model card if asked to."""
    options = _options()
    table = load(options.joined) if options.joined else _scored(options)
    report = markdown(table, options.seed)
    print(report)
    if options.card:
        write_card(options.card, report)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, default=Path(), help="model folder")
    add("--pictures", type=int, default=1000, help="held-out pictures of each family, up to this number")
    add("--first", type=int, default=0, help="number of the first picture: a score may be made in parts")
    add("--long-pictures", type=int, default=1000, help="of these, for long answers and voices")
    add("--seed", type=int, default=HELD_OUT_SEED, help="names the held-out pictures")
    add("--minutes", type=float, default=float("inf"), help="ask no more after this time, in each family")
    add("--families", nargs="+", choices=FAMILIES, default=FAMILIES, help="what to ask about")
    every = (*QUESTIONS, *_VOICES)
    add("--questions", nargs="+", choices=every, default=every, help="what to ask")
    add("--card", type=Path, help="model card to write the tables into")
    add("--scores", type=Path, help="file to write the counts into, after each fifty pictures")
    add("--joined", type=Path, nargs="+", help="ask nothing: report on these files of counts")
    return parser.parse_args()


def _scored(options: argparse.Namespace) -> Table:
    asker, table = Asker(options.model), Table()
    for family in options.families:
        _score_family(asker, family, options, table)
    return table


def _score_family(asker: Asker, family: str, options: argparse.Namespace, table: Table) -> None:
    """Ask every question about a family's pictures, fifty at a time; long answers of fewer if asked to."""
    began = time.monotonic()
    for start in range(options.first, options.pictures, _ROWS):
        numbers = range(start, min(start + _ROWS, options.pictures))
        pictures = [draw_picture(family, options.seed, number) for number in numbers]
        seen = asker.look([picture.image for picture in pictures])
        for question in options.questions:
            if start < (options.long_pictures if question in _LONG else options.pictures):
                score = table.setdefault((family, question), Score())
                for picture, reply in zip(pictures, ask_question(asker, seen, question, start // _ROWS), strict=True):
                    score.add(reply, right_answer(picture.facts, question))
        seconds = time.monotonic() - began
        print(f"{family}: {numbers.stop} of {options.pictures} pictures, {seconds:.0f} s", flush=True)
        if options.scores:
            save(table, options.scores)
        if seconds > 60 * options.minutes:
            break
    for question in options.questions:
        print(_line(family, question, table[family, question]), flush=True)


def ask_question(asker: Asker, seen: Seen, question: str, wording_number: int = 0) -> list[Reply]:
    """Ask one question, such as `count` or `describe as ansel`, in one of its wordings."""
    plain, _, advisor = question.partition(" as ")
    wordings = [words for words in wording.ASKED[plain] if words]
    instructions = advisors()[advisor].instructions if advisor else ""
    words = wordings[wording_number % len(wordings)]
    return asker.ask_about(seen, wording.with_instructions(instructions, words))


def right_answer(facts: Facts, question: str) -> Answer:
    """Say what the answer to a question is."""
    plain, _, advisor = question.partition(" as ")
    return answer(facts, plain, advisor)


def _line(family: str, question: str, score: Score) -> str:
    ended, repeating = score.ended / score.answers, score.repeating
    facts = " ".join(f"{fact}={score.right[fact] / asked:.3f}" for fact, asked in sorted(score.asked.items()))
    return f"{family} / {question}: {score.share:.4f} ended={ended:.4f} rep={repeating}  {facts}"


if __name__ == "__main__":
    main()
