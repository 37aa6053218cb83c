"""Family `composition`: planes of colour between black lines, after Mondrian."""

from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from mondrian_tiny import palette
from mondrian_tiny.facts import COLUMNS, ROWS, Facts, Item, reading_order, temperature_of
from mondrian_tiny.light import brightness_of, luminance, model_pixels
from mondrian_tiny.wear import canvas_size, worn

Box = tuple[float, float, float, float]

_LINE_WIDTHS: Final = {"thin": (0.012, 0.02), "thick": (0.045, 0.06)}
_PLANE_COLOURS: Final = ("red", "yellow", "blue")
_CLEAR_LEAD: Final = 1.4


def draw(rng: np.random.Generator) -> tuple[Image.Image, Facts] | None:
    """Draw one picture and say what is true of it; None where a fact would be doubtful."""
    ground = "white" if rng.random() < 0.7 else "grey"
    lines = str(rng.choice(list(_LINE_WIDTHS)))
    boxes, items = _plan(rng)
    areas = {item.colour: _area(box) for box, item in items.items()}
    dominant, balance = _dominant(areas, ground, len(boxes), lines), _balance(items)
    if not dominant or not balance:
        return None
    image = _paint(boxes, items, ground, lines, rng)
    brightness = brightness_of(luminance(model_pixels(image)))
    if not brightness:
        return None
    facts = Facts(
        family="composition",
        items=reading_order(list(items.values())),
        ground=ground,
        dominant=dominant,
        lines=lines,
        brightness=brightness,
        light="even",
        temperature=temperature_of([item.colour for item in items.values()]),
        balance=balance,
    )
    return image, facts


def _plan(rng: np.random.Generator) -> tuple[list[Box], dict[Box, Item]]:
    """Choose planes and give some of them a colour; the number of colours is decided first."""
    wanted, manner = int(rng.integers(1, 4)), str(rng.choice(("big plane", "grid", "cuts")))
    while True:
        boxes = _grid(rng) if manner == "grid" else _split(rng, big_plane=manner == "big plane")
        items = _coloured(boxes, wanted, rng, largest_first=manner == "big plane")
        if items:
            return boxes, items


def _grid(rng: np.random.Generator) -> list[Box]:
    """Cut the unit square into nine by two lines each way."""
    xs, ys = ((0.0, *_two_cuts(rng), 1.0) for _ in range(2))
    return [(xs[i], ys[j], xs[i + 1], ys[j + 1]) for j in range(3) for i in range(3)]


def _two_cuts(rng: np.random.Generator) -> tuple[float, float]:
    at = rng.uniform(0.2, 0.35)
    return at, 1 - at + rng.uniform(-0.02, 0.02)


def _split(rng: np.random.Generator, *, big_plane: bool) -> list[Box]:
    """Cut the unit square into planes; with `big_plane` the first two cuts leave one large plane."""
    boxes: list[Box] = [(0.0, 0.0, 1.0, 1.0)]
    cuts = int(rng.integers(2, 4)) if big_plane else int(rng.integers(4, 7))
    for number in range(cuts):
        first = big_plane and number < 2
        at = rng.uniform(0.2, 0.27) if first else rng.uniform(0.35, 0.65)
        at = 1 - at if rng.random() < 0.5 else at
        boxes.sort(key=_area, reverse=True)
        target = 1 if big_plane and number >= 2 else 0
        x0, y0, x1, y1 = boxes.pop(target)
        if (number % 2 == 0) if first else (x1 - x0 > y1 - y0):
            x = x0 + at * (x1 - x0)
            boxes += [(x0, y0, x, y1), (x, y0, x1, y1)]
        else:
            y = y0 + at * (y1 - y0)
            boxes += [(x0, y0, x1, y), (x0, y, x1, y1)]
    return boxes


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _third(centre: float) -> int | None:
    """Say before, at or after the middle; None near a border of these."""
    if centre < 0.42:
        return 0
    if 0.47 < centre < 0.53:
        return 1
    return 2 if centre > 0.58 else None


def _item(box: Box, colour: str) -> Item | None:
    column, row = _third((box[0] + box[2]) / 2), _third((box[1] + box[3]) / 2)
    area = _area(box)
    size = "small" if 0.03 < area < 0.13 else "large" if area > 0.19 else ""
    if column is None or row is None or not size:
        return None
    place = f"{ROWS[row]} {COLUMNS[column]}"
    return Item(size=size, colour=colour, form="plane", place=place)


def _coloured(boxes: list[Box], wanted: int, rng: np.random.Generator, *, largest_first: bool) -> dict[Box, Item]:
    """Give `wanted` planes a colour each, in places that differ; empty where that fails."""
    colours = [str(colour) for colour in rng.permutation(_PLANE_COLOURS)]
    order = [boxes[i] for i in rng.permutation(len(boxes))]
    if largest_first:
        order.sort(key=lambda box: _area(box) < 0.4)
    chosen: dict[Box, Item] = {}
    for box in order:
        item = _item(box, colours[len(chosen)])
        if item and all(item.place != other.place for other in chosen.values()):
            chosen[box] = item
        if len(chosen) == wanted:
            return chosen
    return {}


def _dominant(areas: dict[str, float], ground: str, boxes: int, lines: str) -> str:
    """Name the colour of the largest area; empty where its lead is not clear."""
    line_area = (boxes - 1) * 0.6 * _LINE_WIDTHS[lines][1]
    every = areas | {ground: 1 - sum(areas.values()) - line_area, "black": line_area}
    first, second = sorted(every, key=lambda colour: every[colour], reverse=True)[:2]
    return first if every[first] >= _CLEAR_LEAD * every[second] else ""


def _balance(items: dict[Box, Item]) -> str:
    """Weigh the coloured areas left against right; empty where the pull is slight."""
    total = sum(_area(box) for box in items)
    pull = sum(_area(box) * ((box[0] + box[2]) / 2 - 0.5) for box in items) / total
    if abs(pull) < 0.02:
        return "even"
    return "left" if pull < -0.09 else "right" if pull > 0.09 else ""


def _paint(boxes: list[Box], items: dict[Box, Item], ground: str, lines: str, rng: np.random.Generator) -> Image.Image:
    width, height = canvas_size(rng)
    image = Image.new("RGB", (width, height))
    pencil, ground_rgb = ImageDraw.Draw(image), palette.sample(ground, rng)
    thickness = max(1, round(rng.uniform(*_LINE_WIDTHS[lines]) * min(width, height)))
    line_rgb = palette.sample("black", rng)
    for box in boxes:
        fill = palette.sample(items[box].colour, rng) if box in items else ground_rgb
        pencil.rectangle(_scaled(box, width, height), fill=fill)
    for box in boxes:
        x0, y0, x1, y1 = _scaled(box, width, height)
        before, after = thickness // 2, thickness - thickness // 2 - 1
        for x in {x0, x1} - {0, width}:
            pencil.rectangle((x - before, y0, x + after, y1), fill=line_rgb)
        for y in {y0, y1} - {0, height}:
            pencil.rectangle((x0, y - before, x1, y + after), fill=line_rgb)
    return worn(image, rng)


def _scaled(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box
    return (round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height))
