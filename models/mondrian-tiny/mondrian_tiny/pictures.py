"""Pictures: draws any picture of any family from a seed, with what is true of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from mondrian_tiny import draw_composition, draw_photo, draw_shapes
from mondrian_tiny.facts import FAMILIES, Facts

Drawer = Callable[[np.random.Generator], tuple[Image.Image, Facts] | None]

_DRAWERS: Final[dict[str, Drawer]] = {
    "shapes": draw_shapes.draw,
    "composition": draw_composition.draw,
    "photo": draw_photo.draw,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture and its ground truth."""

    image: Image.Image
    facts: Facts


def draw_picture(family: str, *seed: int) -> Picture:
    """Draw the picture of `family` that these numbers name: the same numbers, the same picture."""
    rng = np.random.default_rng([*seed, FAMILIES.index(family)])
    while True:
        drawn = _DRAWERS[family](rng)
        if drawn is not None:
            return Picture(image=drawn[0], facts=drawn[1])
