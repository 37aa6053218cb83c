"""Facts: what is true of a picture, as words, and as class numbers for training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

FAMILIES: Final = ("shapes", "composition", "photo")
COLOURS: Final = ("white", "grey", "black", "red", "orange", "yellow", "green", "blue", "purple")
SIZES: Final = ("small", "large")
FORMS: Final = ("circle", "square", "triangle", "plane")
ROWS: Final = ("top", "middle", "bottom")
COLUMNS: Final = ("left", "centre", "right")
PLACES: Final = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
LINES: Final = ("thin", "thick")
BRIGHTNESS: Final = ("dark", "medium", "bright")
LIGHTS: Final = ("left", "right", "top", "bottom", "even")
TEMPERATURES: Final = ("warm", "cool", "mixed", "neutral")
CONTRASTS: Final = ("low", "high")
BALANCES: Final = ("left", "right", "even")
KINDS: Final = ("gradient", "blobs", "horizon", "texture", "noise")
COUNTS: Final = ("one", "two", "three")
MOST_ITEMS: Final = len(COUNTS)

WARM: Final = frozenset({"red", "orange", "yellow"})
COOL: Final = frozenset({"green", "blue", "purple"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One shape, or one coloured plane."""

    size: str
    colour: str
    form: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a person sees in a picture; an empty word where the family has no such fact."""

    family: str
    items: tuple[Item, ...] = ()
    ground: str = ""
    dominant: str
    lines: str = ""
    brightness: str
    light: str
    temperature: str
    contrast: str = ""
    balance: str
    kind: str = ""

    @property
    def count(self) -> str:
        """The number of items as a word; empty where there is none."""
        return COUNTS[len(self.items) - 1] if self.items else ""


def facts_from(table: Mapping[str, Any]) -> Facts:
    """Build facts from what `dataclasses.asdict` made of them."""
    return Facts(**{**table, "items": tuple(Item(**item) for item in table["items"])})


def temperature_of(colours: Sequence[str]) -> str:
    """Say whether colours are all warm, all cool, or mixed."""
    warm, cool = (any(c in group for c in colours) for group in (WARM, COOL))
    return "mixed" if warm and cool else "warm" if warm else "cool"


def reading_order(items: Sequence[Item]) -> tuple[Item, ...]:
    """Sort items by place: row by row, left to right."""
    return tuple(sorted(items, key=lambda item: PLACES.index(item.place)))


PICTURE_LABELS: Final[dict[str, tuple[str, ...]]] = {
    "family": FAMILIES,
    "count": COUNTS,
    "ground": COLOURS,
    "dominant": COLOURS,
    "lines": LINES,
    "brightness": BRIGHTNESS,
    "light": LIGHTS,
    "temperature": TEMPERATURES,
    "contrast": CONTRASTS,
    "balance": BALANCES,
    "kind": KINDS,
}
ITEM_LABELS: Final[dict[str, tuple[str, ...]]] = {
    "size": SIZES,
    "colour": COLOURS,
    "form": FORMS,
    "row": ROWS,
    "column": COLUMNS,
}


def label_classes() -> list[tuple[str, int]]:
    """Name each label column and its number of classes, in the order of `labels_of`."""
    columns = [(name, len(words)) for name, words in PICTURE_LABELS.items()]
    for place in range(MOST_ITEMS):
        columns += [(f"item {place} {name}", len(words)) for name, words in ITEM_LABELS.items()]
    for place_name in PLACES:
        columns.append((f"{place_name} colour", len(COLOURS) + 1))
        columns.append((f"{place_name} form", len(FORMS)))
        columns.append((f"{place_name} size", len(SIZES)))
    return columns


def labels_of(facts: Facts) -> list[int]:
    """Give the class number of each label column, -1 where a fact does not apply."""
    labels = [_class_of(getattr(facts, name), words) for name, words in PICTURE_LABELS.items()]
    for index in range(MOST_ITEMS):
        item = facts.items[index] if index < len(facts.items) else None
        labels += _item_labels(item)
    return labels + _place_labels(facts)


def _class_of(word: str, words: tuple[str, ...]) -> int:
    return words.index(word) if word else -1


def _item_labels(item: Item | None) -> list[int]:
    if item is None:
        return [-1] * len(ITEM_LABELS)
    row, column = item.place.split()
    words = {"size": item.size, "colour": item.colour, "form": item.form}
    words |= {"row": row, "column": column}
    return [_class_of(words[name], classes) for name, classes in ITEM_LABELS.items()]


def _place_labels(facts: Facts) -> list[int]:
    if not facts.items:
        return [-1] * (3 * len(PLACES))
    labels: list[int] = []
    by_place = {item.place: item for item in facts.items}
    for place in PLACES:
        item = by_place.get(place)
        labels.append(COLOURS.index(item.colour) + 1 if item else 0)
        labels.append(FORMS.index(item.form) if item else -1)
        labels.append(SIZES.index(item.size) if item else -1)
    return labels
