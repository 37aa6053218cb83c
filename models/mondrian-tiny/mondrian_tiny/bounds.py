"""Bounds: what the model must reach on held-out pictures, in one place for the test and for a release."""

from collections.abc import Mapping
from typing import Final

from mondrian_tiny.score import Score

FACTS_IN_ALL: Final = 0.95
FACTS_IN_EACH_QUESTION: Final = 0.90
ENDED: Final = 0.995


def shortcomings(table: Mapping[tuple[str, str], Score]) -> list[str]:
    """Say which bounds are missed by `(family, question)` scores; empty where all are met."""
    missed = [
        f"{family}, {question}: {score.share:.3f} of the facts"
        for (family, question), score in table.items()
        if score.share < FACTS_IN_EACH_QUESTION
    ]
    for family in dict.fromkeys(family for family, _ in table):
        merged = Score()
        for (each, _), score in table.items():
            if each == family:
                merged.merge(score)
        if merged.share < FACTS_IN_ALL:
            missed.append(f"{family}: {merged.share:.3f} of the facts")
    asked = sum(score.answers for score in table.values())
    ended = sum(score.ended for score in table.values())
    if ended < ENDED * asked:
        missed.append(f"{asked - ended} of {asked} answers did not end by themselves")
    repeating = sum(score.repeating for score in table.values())
    if repeating:
        missed.append(f"{repeating} answers repeat a sentence")
    return missed
