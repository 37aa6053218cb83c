"""The palette: which RGB values each colour word stands for, with room between the words."""

import colorsys
from typing import Final

import numpy as np

Rgb = tuple[int, int, int]

_HUES: Final[dict[str, tuple[float, float]]] = {
    "red": (-8, 6),
    "orange": (24, 33),
    "yellow": (51, 60),
    "green": (105, 145),
    "blue": (212, 236),
    "purple": (274, 298),
}
_VALUES: Final[dict[str, tuple[float, float]]] = {
    "red": (0.72, 0.92),
    "orange": (0.92, 1.0),
    "yellow": (0.9, 1.0),
    "green": (0.45, 0.72),
    "blue": (0.55, 0.9),
    "purple": (0.5, 0.75),
}
_GREYS: Final[dict[str, tuple[int, int]]] = {
    "white": (236, 255),
    "grey": (120, 142),
    "black": (0, 22),
}


def sample(colour: str, rng: np.random.Generator) -> Rgb:
    """Draw an RGB value that a person calls `colour`."""
    if colour in _GREYS:
        level = int(rng.integers(*_GREYS[colour], endpoint=True))
        return (level, level, level)
    hue = rng.uniform(*_HUES[colour]) / 360 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(0.82, 1), rng.uniform(*_VALUES[colour]))
    return (round(red * 255), round(green * 255), round(blue * 255))
