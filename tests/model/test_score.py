"""The score can tell: what is written reads back, and what is wrong, missing or too much counts."""

from dataclasses import replace

import pytest

from mondrian_tiny.answers import ADVISORS, QUESTIONS, answer
from mondrian_tiny.facts import FAMILIES
from mondrian_tiny.pictures import Picture, draw_picture
from mondrian_tiny.score import Reply, Score
from mondrian_tiny.sentences import read, split, write

SEED = 31


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    """Draw five pictures of each family."""
    return [draw_picture(family, SEED, number) for family in FAMILIES for number in range(5)]


@pytest.mark.parametrize("advisor", ["", *ADVISORS])
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_answer_reads_back_and_repeats_no_sentence(pictures: list[Picture], question: str, advisor: str) -> None:
    """One table writes the sentences and reads them, and no answer says a thing twice."""
    for picture in pictures:
        said = answer(picture.facts, question, advisor)

        text = write(said).text

        assert read(text) == said
        assert len(set(split(text))) == len(said)


def test_the_right_answer_scores_full(pictures: list[Picture]) -> None:
    """Nothing is lost on what is right."""
    score = Score()

    for picture in pictures:
        said = answer(picture.facts, "describe")
        score.add(Reply(text=write(said).text, ended=True), said)

    assert score.share == 1
    assert (score.ended, score.repeating, score.exact) == (len(pictures), 0, len(pictures))


def test_a_wrong_fact_counts_once(pictures: list[Picture]) -> None:
    """A picture called dark that is bright: one fact of that answer is wrong."""
    facts = next(p.facts for p in pictures if p.facts.brightness == "bright")
    wrong = answer(replace(facts, brightness="dark"), "light")
    score = Score()

    score.add(Reply(text=write(wrong).text, ended=True), answer(facts, "light"))

    assert sum(score.asked.values()) - sum(score.right.values()) == 1


def test_saying_less_and_saying_more_both_cost(pictures: list[Picture]) -> None:
    """A missing sentence loses its facts, and so does a sentence too many."""
    said = answer(pictures[0].facts, "balance")
    less, more = Score(), Score()

    less.add(Reply(text="", ended=True), said)
    more.add(Reply(text=write([*said, *answer(pictures[0].facts, "light")]).text, ended=True), said)

    assert less.share == 0
    assert more.share < 1


def test_the_same_numbers_draw_the_same_picture() -> None:
    """A seed names a picture: training and scores can be repeated."""
    first, second = (draw_picture("shapes", SEED, 3) for _ in range(2))

    assert first.facts == second.facts
    assert first.image.tobytes() == second.image.tobytes()
