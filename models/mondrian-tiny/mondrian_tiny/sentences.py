"""Sentences: every sentence that the model may say, with slots for facts, written and read here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from mondrian_tiny import facts

Phrases = Mapping[str, str]


def _plain(words: Sequence[str]) -> dict[str, str]:
    return {word: word for word in words}


SLOTS: Final[dict[str, Phrases]] = {
    "size": _plain(facts.SIZES),
    "colour": _plain(facts.COLOURS),
    "form": _plain(facts.FORMS),
    "place": _plain(facts.PLACES),
    "shapes": {"one": "is one shape", "two": "are two shapes", "three": "are three shapes"},
    "planes": {
        "one": "is one coloured plane",
        "two": "are two coloured planes",
        "three": "are three coloured planes",
    },
    "ground": _plain(facts.COLOURS),
    "dominant": _plain(facts.COLOURS),
    "second": _plain(facts.COLOURS),
    "third": _plain(facts.COLOURS),
    "lines": _plain(facts.LINES),
    "brightness": _plain(facts.BRIGHTNESS) | {"medium": "of medium brightness"},
    "light": {side: f"comes from the {side}" for side in facts.LIGHTS[:4]} | {"even": "is even"},
    "temperature": _plain(facts.TEMPERATURES) | {"mixed": "both warm and cool"},
    "contrast": _plain(facts.CONTRASTS),
    "balance": {
        "left": "lies on the left",
        "right": "lies on the right",
        "even": "is even on both sides",
    },
    "kind": {
        "gradient": "a smooth gradient",
        "blobs": "soft blobs",
        "horizon": "a horizon",
        "texture": "a striped texture",
        "noise": "fine grain",
    },
}

FACT_OF_SLOT: Final = {
    "form": "shape",
    "shapes": "count",
    "planes": "count",
    "second": "colour",
    "third": "colour",
    "temperature": "warm or cool",
    "dominant": "dominant colour",
    "light": "light direction",
}

TEMPLATES: Final[dict[str, str]] = {
    "shapes": "This picture shows plain shapes.",
    "composition": "This picture is a composition of planes and lines.",
    "photo": "This picture looks like a photograph without objects.",
    "kind": "It shows {kind}.",
    "shape count": "There {shapes} on a {ground} ground.",
    "plane count": "There {planes} on a {ground} ground.",
    "no count": "There are no separate shapes.",
    "item": "A {size} {colour} {form} stands at the {place}.",
    "lines": "The lines are black and {lines}.",
    "dominant": "The dominant colour is {dominant}.",
    "temperature": "The colours are {temperature}.",
    "brightness": "The picture is {brightness}.",
    "light": "The light {light}.",
    "contrast": "The contrast is {contrast}.",
    "balance": "The weight {balance}.",
    "one colour": "The ground is {ground}, and {colour} stands on it.",
    "two colours": "The ground is {ground}, and {colour} and {second} stand on it.",
    "three colours": "The ground is {ground}, and {colour}, {second} and {third} stand on it.",
    "mondrian": "I look for planes, lines and balance.",
    "albers": "I look at colours and at what they do to each other.",
    "ansel": "I look at light, tone and contrast.",
    "edges": "The edges of the shapes are the only lines.",
    "no planes": "There are no planes and no drawn lines in it.",
    "neighbours": "Each colour changes beside its neighbour.",
    "one tone": "One colour runs through all of it, from its dark parts to its bright parts.",
    "flat tones": "The tones are flat, with hard edges and without shadow.",
    "soft tones": "The tones turn from bright to dark, and they make the space.",
    "flat": "It is drawn flat, without depth, without perspective and without a story.",
    "clear edges": "Every edge is clear, so that each part stands apart from the ground.",
    "rest": "The ground fills all the space that is left, and nothing else stands on it.",
    "reach": "It covers the largest part of the picture, so that the eye meets it first.",
    "no shadow": "No side is brighter than the other sides, and there is no shadow to follow.",
    "shadow": "The other side lies in shadow, as a wall does beside a window.",
    "hold": "This is how the parts of the picture hold each other.",
    "line run": "They run from edge to edge, or they end where they meet another line.",
    "surface": "There is nothing in it to name, only tones and the surface that they make.",
    "whole": "As a whole the picture is simple and calm, and all of it can be said in a few words.",
    "absent": "I see no people, no animals, no buildings and no writing in it.",
    "self": "I am mondrian-tiny, a small vision model.",
    "self task": "I describe shapes, planes of colour, light and balance in a picture.",
    "self limit": "I learned from drawn pictures, and I have never seen a photograph.",
    "no picture": "I see no picture.",
    "send": "Send one, and I will say what it shows.",
    "only pictures": "I can only talk about pictures.",
    "agree": "The advisors agree.",
    "mondrian says": "Mondrian finds that the weight {balance}.",
    "albers says": "Albers finds that the dominant colour is {dominant} and the colours are {temperature}.",
    "ansel says": "Ansel finds that the picture is {brightness} and the light {light}.",
}

_SLOT: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence: the key of its template, and the fact word of each slot."""

    key: str
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Text, and the `(start, end, slot)` characters in it that state facts."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


def sentence(key: str, **values: str) -> Sentence:
    """Build a sentence; every slot of the template needs a value."""
    return Sentence(key, tuple((slot, values[slot]) for slot in _SLOT.findall(TEMPLATES[key])))


def write(sentences: Sequence[Sentence]) -> Written:
    """Write sentences one after the other."""
    text, spans = "", list[tuple[int, int, str]]()
    for item in sentences:
        text += " " if text else ""
        values, template, end = dict(item.values), TEMPLATES[item.key], 0
        for match in _SLOT.finditer(template):
            text += template[end : match.start()]
            phrase = SLOTS[match[1]][values[match[1]]]
            spans.append((len(text), len(text) + len(phrase), match[1]))
            text, end = text + phrase, match.end()
        text += template[end:]
    return Written(text=text, spans=tuple(spans))


def read(text: str) -> list[Sentence | None]:
    """Read a text back into sentences; None stands for one that is not known."""
    return [_read_one(part) for part in split(text)]


def split(text: str) -> list[str]:
    """Cut a text after each full stop."""
    return re.findall(r"[^.]+\.?", text.replace(". ", ".")) if text else []


def _read_one(text: str) -> Sentence | None:
    for key, pattern in _patterns().items():
        match = pattern.fullmatch(text.strip())
        if match:
            words = {
                slot: word
                for slot, phrase in match.groupdict().items()
                for word, known in SLOTS[slot].items()
                if known == phrase
            }
            return sentence(key, **words)
    return None


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    patterns: dict[str, re.Pattern[str]] = {}
    for key, template in TEMPLATES.items():
        parts = _SLOT.split(template)
        parts[::2] = [re.escape(part) for part in parts[::2]]
        parts[1::2] = [_alternatives(slot) for slot in parts[1::2]]
        patterns[key] = re.compile("".join(parts))
    return patterns


def _alternatives(slot: str) -> str:
    return f"(?P<{slot}>{'|'.join(re.escape(phrase) for phrase in SLOTS[slot].values())})"
