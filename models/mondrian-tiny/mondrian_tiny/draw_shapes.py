"""Family `shapes`: one to three plain shapes on a ground."""

import math
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from mondrian_tiny import palette
from mondrian_tiny.facts import COLUMNS, PLACES, Facts, Item, reading_order, temperature_of
from mondrian_tiny.light import brightness_of, luminance, model_pixels
from mondrian_tiny.wear import canvas_size, worn

_GROUNDS: Final = ("white", "grey", "black")
_SHAPE_COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple")
_SHAPE_FORMS: Final = ("circle", "square", "triangle")
_DIAMETERS: Final = {"small": (0.18, 0.21), "large": (0.28, 0.32)}
_WEIGHTS: Final = {"small": 1, "large": 3}
_OVERSAMPLING: Final = 2


def draw(rng: np.random.Generator) -> tuple[Image.Image, Facts] | None:
    """Draw one picture and say what is true of it; None where a fact would be doubtful."""
    size = canvas_size(rng)
    ground = str(rng.choice(_GROUNDS))
    items = reading_order(_items(rng))
    image = Image.new("RGB", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
    image.paste(palette.sample(ground, rng), (0, 0, *image.size))
    for item in items:
        _draw_item(image, item, rng)
    image = worn(image.resize(size, Image.Resampling.BOX), rng)
    brightness = brightness_of(luminance(model_pixels(image)))
    return (image, _facts(items, ground, brightness)) if brightness else None


def _items(rng: np.random.Generator) -> list[Item]:
    places = rng.permutation(PLACES)[: int(rng.integers(1, 4))]
    return [
        Item(
            size=str(rng.choice(("small", "large"))),
            colour=str(rng.choice(_SHAPE_COLOURS)),
            form=str(rng.choice(_SHAPE_FORMS)),
            place=str(place),
        )
        for place in places
    ]


def _draw_item(image: Image.Image, item: Item, rng: np.random.Generator) -> None:
    """Draw a shape inside its ninth of the picture, touching no border of it."""
    row, column = divmod(PLACES.index(item.place), len(COLUMNS))
    diameter = rng.uniform(*_DIAMETERS[item.size]) * min(image.size)
    cell = (image.width / 3, image.height / 3)
    room = [max(0.0, (side - diameter) / 2 - 0.01 * side) for side in cell]
    x = cell[0] * (column + 0.5) + rng.uniform(-1, 1) * room[0]
    y = cell[1] * (row + 0.5) + rng.uniform(-1, 1) * room[1]
    pencil, colour = ImageDraw.Draw(image), palette.sample(item.colour, rng)
    radius = diameter / 2
    if item.form == "circle":
        pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        pencil.polygon(_corners(item.form, x, y, radius, rng.uniform(-5, 5)), fill=colour)


def _corners(form: str, x: float, y: float, radius: float, degrees: float) -> list[tuple[float, float]]:
    if form == "square":
        unit = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
    else:
        unit = [(0.0, -0.95), (0.98, 0.85), (-0.98, 0.85)]
    turn = math.radians(degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    return [(x + radius * (u * cos - v * sin), y + radius * (u * sin + v * cos)) for u, v in unit]


def _facts(items: tuple[Item, ...], ground: str, brightness: str) -> Facts:
    return Facts(
        family="shapes",
        items=items,
        ground=ground,
        dominant=ground,
        brightness=brightness,
        light="even",
        temperature=temperature_of([item.colour for item in items]),
        balance=_balance(items),
    )


def _balance(items: tuple[Item, ...]) -> str:
    """Weigh left against right: a large shape counts three, a small one counts one."""
    sides = {"left": 1, "centre": 0, "right": -1}
    pull = sum(_WEIGHTS[item.size] * sides[item.place.split()[1]] for item in items)
    return "left" if pull > 0 else "right" if pull < 0 else "even"
