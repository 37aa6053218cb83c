"""Samples: half a dozen pictures of the families, for the README, the tests and the demo.

Run in `models/mondrian-tiny/`: `python -m mondrian_tiny.samples`. Writes `samples/` and what is true of
each picture, as `samples/facts.json`.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Final

from mondrian_tiny.facts import Facts
from mondrian_tiny.pictures import Picture, draw_picture

_SEED: Final = 1872
_SAMPLES: Final[dict[str, tuple[str, Callable[[Facts], bool]]]] = {
    "shapes-red-circle.png": (
        "shapes",
        lambda facts: _items(facts) == [("large", "red", "circle")] and facts.ground == "white",
    ),
    "shapes-three.webp": (
        "shapes",
        lambda facts: (
            len({item.form for item in facts.items}) == 3
            and len({item.colour for item in facts.items}) == 3
            and facts.ground == "black"
        ),
    ),
    "composition-white.png": (
        "composition",
        lambda facts: len(facts.items) == 3 and facts.dominant == "white" and facts.lines == "thick",
    ),
    "composition-red.jpg": ("composition", lambda facts: facts.dominant == "red"),
    "photo-horizon-warm.jpg": (
        "photo",
        lambda facts: (facts.kind, facts.temperature, facts.light) == ("horizon", "warm", "left"),
    ),
    "photo-blobs-dark.jpg": (
        "photo",
        lambda facts: (
            (facts.kind, facts.brightness, facts.temperature, facts.light) == ("blobs", "dark", "cool", "right")
        ),
    ),
}


def _items(facts: Facts) -> list[tuple[str, str, str]]:
    return [(item.size, item.colour, item.form) for item in facts.items]


def sample(name: str) -> Picture:
    """Draw the first picture that is what its name says."""
    family, wanted = _SAMPLES[name]
    numbers = (draw_picture(family, _SEED, number) for number in count())
    return next(picture for picture in numbers if wanted(picture.facts))


def main() -> None:
    """Write the pictures and their facts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder to write")
    folder: Path = parser.parse_args().out
    folder.mkdir(exist_ok=True)
    facts: dict[str, object] = {}
    for name in _SAMPLES:
        picture = sample(name)
        lossless = {"lossless": True} if name.endswith(".webp") else {"quality": 92}
        picture.image.save(folder / name, **({} if name.endswith(".png") else lossless))
        facts[name] = asdict(picture.facts)
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (folder / "facts.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
