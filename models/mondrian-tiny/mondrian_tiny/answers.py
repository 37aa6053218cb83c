"""Answers: what the model is to say, a pure function of facts, question and advisor."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

from mondrian_tiny.facts import Facts
from mondrian_tiny.sentences import Sentence, sentence

ADVISORS: Final = ("mondrian", "albers", "ansel")
QUESTIONS: Final = ("describe", "detail", "dominant", "light", "balance", "count")

Answer = list[Sentence]


def answer(facts: Facts, question: str, advisor: str = "") -> Answer:
    """Answer a question about a picture; an advisor speaks in `describe` and opens `detail`."""
    if question == "describe" and advisor:
        return [sentence(advisor), *_VOICES[advisor](facts)]
    if question == "detail" and advisor:
        return [sentence(advisor), *_detail(facts)]
    return _PLAIN[question](facts)


def about_itself() -> Answer:
    """Say what the model is."""
    return [sentence("self"), sentence("self task"), sentence("self limit")]


def without_picture() -> Answer:
    """Answer a question about a picture that was not sent."""
    return [sentence("no picture"), sentence("send")]


def off_topic() -> Answer:
    """Answer a text that has nothing to do with pictures."""
    return [sentence("only pictures"), sentence("send")]


def synthesis(facts: Facts, advisors: Sequence[str]) -> Answer:
    """Join what advisors said in `describe` or `detail`: one sentence for each."""
    return [_say(f"{advisor} says", facts) for advisor in advisors]


def agreement(facts: Facts, question: str) -> Answer:
    """Join advisors' answers to a plain question: they are the same."""
    return [sentence("agree"), *_PLAIN[question](facts)]


def _say(key: str, facts: Facts) -> Sentence:
    words = {name: word for name, word in asdict(facts).items() if isinstance(word, str)}
    return sentence(key, **words, shapes=facts.count, planes=facts.count)


def _all(facts: Facts, *keys: str) -> Answer:
    return [_say(key, facts) for key in keys]


def _count(facts: Facts) -> Answer:
    if facts.family == "photo":
        return _all(facts, "no count", "kind")
    return _all(facts, "shape count" if facts.family == "shapes" else "plane count")


def _items(facts: Facts) -> Answer:
    return [sentence("item", **asdict(item)) for item in facts.items]


def _lines(facts: Facts) -> Answer:
    return _all(facts, "lines") if facts.lines else []


def _tone(facts: Facts) -> Answer:
    keys = ("brightness", "light", "contrast") if facts.contrast else ("brightness", "light")
    return _all(facts, *keys)


def _dominant(facts: Facts) -> Answer:
    return _all(facts, "dominant", "temperature")


def _balance(facts: Facts) -> Answer:
    return _all(facts, "balance")


def _what(facts: Facts) -> Answer:
    """Say the family, and the things in the picture."""
    if facts.family == "photo":
        return _all(facts, "photo", "kind")
    return [*_all(facts, facts.family), *_count(facts), *_items(facts), *_lines(facts)]


def _describe(facts: Facts) -> Answer:
    return [*_what(facts), *_dominant(facts), *_tone(facts), *_balance(facts)]


def _detail(facts: Facts) -> Answer:
    flat = facts.family != "photo"
    opening = _all(facts, facts.family, "flat") if flat else _all(facts, "photo", "surface")
    things = [*_count(facts), *_items(facts)] if flat else _all(facts, "kind")
    ground = _all(facts, "clear edges", "rest") if flat else []
    lines = _all(facts, "lines", "line run") if facts.lines else []
    contrast = _all(facts, "contrast", "soft tones") if facts.contrast else []
    shadow = "no shadow" if facts.light == "even" else "shadow"
    colour = _all(facts, "dominant", "reach", "temperature")
    light = _all(facts, "brightness", "light", shadow)
    close = _all(facts, "balance", "hold", "whole", "absent")
    return [*opening, *things, *ground, *lines, *colour, *light, *contrast, *close]


def _mondrian(facts: Facts) -> Answer:
    if facts.family == "photo":
        return _all(facts, "no planes", "kind", "light", "balance", "hold")
    drawn = _lines(facts) or _all(facts, "edges")
    return [*_count(facts), *_items(facts), *drawn, *_balance(facts), *_all(facts, "hold")]


def _albers(facts: Facts) -> Answer:
    if facts.family == "photo":
        return [*_dominant(facts), *_all(facts, "one tone")]
    return [*_dominant(facts), _colours(facts), *_all(facts, "neighbours")]


def _colours(facts: Facts) -> Sentence:
    colours = [item.colour for item in facts.items]
    words = dict(zip(("colour", "second", "third"), colours, strict=False))
    plural = "" if len(colours) == 1 else "s"
    return sentence(f"{facts.count} colour{plural}", ground=facts.ground, **words)


def _ansel(facts: Facts) -> Answer:
    tones = "soft tones" if facts.family == "photo" else "flat tones"
    shadow = "no shadow" if facts.light == "even" else "shadow"
    return [*_tone(facts), *_all(facts, shadow, tones)]


_PLAIN: Final[dict[str, Callable[[Facts], Answer]]] = {
    "describe": _describe,
    "detail": _detail,
    "dominant": _dominant,
    "light": _tone,
    "balance": _balance,
    "count": _count,
}
_VOICES: Final[dict[str, Callable[[Facts], Answer]]] = {
    "mondrian": _mondrian,
    "albers": _albers,
    "ansel": _ansel,
}
