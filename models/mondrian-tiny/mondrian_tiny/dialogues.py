"""Dialogues: chooses what is asked about a picture in training, and in which voice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mondrian_tiny import answers, wording
from mondrian_tiny.advisors import advisors
from mondrian_tiny.answers import ADVISORS, QUESTIONS, Answer
from mondrian_tiny.facts import Facts
from mondrian_tiny.sentences import write

_SHORT: Final = ("dominant", "light", "balance", "count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the user writes, and what the model is to say."""

    asked: str
    said: Answer


def turns_about(facts: Facts, rng: np.random.Generator) -> list[Turn]:
    """Choose the turns about one picture, the most wanted first."""
    first = "detail" if rng.random() < 0.25 else "describe"
    turns = [_turn(facts, first, _voice(rng, 0.6 if first == "describe" else 0.3), rng)]
    # To weigh one side against the other takes longest to learn, so it is asked of every picture.
    turns.append(_turn(facts, "balance", _voice(rng, 0.15), rng))
    rest = [_turn(facts, question, _voice(rng, 0.25), rng) for question in _SHORT if question != "balance"]
    rest += [_turn(facts, "describe", _voice(rng, 0.6), rng) for _ in range(2)]
    rest.append(_rare(facts, rng))
    return turns + [rest[i] for i in rng.permutation(len(rest))]


def turns_without_picture(facts: Facts, rng: np.random.Generator) -> list[Turn]:
    """Choose turns that come without a picture: a synthesis first, then short ones."""
    return [synthesis_turn(facts, rng), *(_alone(rng) for _ in range(4))]


def synthesis_turn(facts: Facts, rng: np.random.Generator) -> Turn:
    """Ask to join what two or three advisors said about a picture."""
    names = [str(name) for name in rng.permutation(ADVISORS)[: int(rng.integers(2, 4))]]
    if rng.random() < 0.6:
        names.sort(key=ADVISORS.index)
    if rng.random() < 0.2:
        question = str(rng.choice(_SHORT))
        said = answers.agreement(facts, question)
        texts = [write(answers.answer(facts, question)).text] * len(names)
    else:
        said = answers.synthesis(facts, names)
        texts = [write(answers.answer(facts, "describe", name)).text for name in names]
    shown = [advisors()[name].display_name if rng.random() < 0.8 else name for name in names]
    prompt = wording.panel_prompt(list(zip(shown, texts, strict=True)), rng)
    return Turn(asked=prompt, said=said)


def _voice(rng: np.random.Generator, share: float) -> str:
    return str(rng.choice(ADVISORS)) if rng.random() < share else ""


def _instructions(voice: str, rng: np.random.Generator) -> str:
    if voice:
        return advisors()[voice].instructions
    return str(rng.choice(wording.OTHER_INSTRUCTIONS)) if rng.random() < 0.1 else ""


def _turn(facts: Facts, question: str, voice: str, rng: np.random.Generator) -> Turn:
    asked = wording.with_instructions(_instructions(voice, rng), wording.ask(question, rng))
    return Turn(asked=asked, said=answers.answer(facts, question, voice))


def _rare(facts: Facts, rng: np.random.Generator) -> Turn:
    """Ask beside the picture: about the model, off topic, or to join advice on this picture."""
    chance = rng.random()
    if chance < 0.4:
        asked = wording.vary(str(rng.choice(wording.ABOUT_ITSELF)), rng)
        return Turn(asked=asked, said=answers.about_itself())
    if chance < 0.8:
        return Turn(asked=_off_topic(rng), said=answers.answer(facts, "describe"))
    return synthesis_turn(facts, rng)


def _off_topic(rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        return wording.scribble(rng)
    return wording.vary(str(rng.choice(wording.OFF_TOPIC)), rng)


def _alone(rng: np.random.Generator) -> Turn:
    """Ask without a picture: about the model, about a picture that is missing, or off topic."""
    voice, chance = _voice(rng, 0.3), rng.random()
    if chance < 0.45:
        asked = wording.vary(str(rng.choice(wording.ABOUT_ITSELF)), rng)
        said = answers.about_itself()
    elif chance < 0.75:
        asked, said = wording.ask(str(rng.choice(QUESTIONS)), rng), answers.without_picture()
        asked = asked or "Describe this image."
    else:
        asked, said = _off_topic(rng), answers.off_topic()
    return Turn(asked=wording.with_instructions(_instructions(voice, rng), asked), said=said)


def corpus(pictures: Sequence[Facts], rng: np.random.Generator) -> list[str]:
    """Collect what is asked and said about pictures, to learn the tokenizer from."""
    texts: list[str] = []
    for facts in pictures:
        turns = turns_about(facts, rng) + turns_without_picture(facts, rng)
        turns += [Turn(asked="", said=answers.answer(facts, "detail"))]
        texts += [text for turn in turns for text in (turn.asked, write(turn.said).text)]
    return texts + [w for ways in wording.ASKED.values() for w in ways] * 3
