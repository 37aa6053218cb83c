"""Drawing: a second process that draws the pictures of each step ahead of the training."""

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final

import numpy as np

from mondrian_tiny import tokenizer
from mondrian_tiny.dialogues import turns_about, turns_without_picture
from mondrian_tiny.facts import Facts, labels_of
from mondrian_tiny.light import model_pixels
from mondrian_tiny.packing import Packer, Rows
from mondrian_tiny.pictures import draw_picture
from mondrian_tiny.wording import OTHER_INSTRUCTIONS

_AHEAD: Final = 12
_NICENESS: Final = 5
# Shapes come more often: their form is the hardest of all facts to see.
_TURNS_WITH_TEXT: Final = ("shapes", "composition", "shapes", "photo")
_TURNS: Final = (*["shapes"] * 3, "composition", *["shapes"] * 3, "photo")
_PICTURES_PER_TEXT_ROW: Final = 8
_SYSTEM_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One step: pixels `(n, 128, 128, 3)` uint8, labels `(n, columns)`, and rows of text.

    The first rows are about the first `asked_about` pictures, in their order; the others come
    without a picture.
    """

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    asked_about: int
    rows: Rows | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the drawing process needs: where to start, and from which step on text is wanted."""

    seed: int
    first_step: int
    pictures_without_text: int
    pictures_with_text: int
    text_from: int
    model_folder: Path


def draw_batch(plan: Plan, step: int, packer: Packer) -> Batch:
    """Draw the pictures of a step, each named by seed, step and place in the step."""
    asked_about = plan.pictures_with_text if step >= plan.text_from else 0
    without = plan.pictures_without_text // (2 if asked_about else 1)
    families = [_TURNS_WITH_TEXT[i % len(_TURNS_WITH_TEXT)] for i in range(asked_about)]
    families += [_TURNS[i % len(_TURNS)] for i in range(without)]
    pictures = [draw_picture(family, plan.seed, step, i) for i, family in enumerate(families)]
    facts = [picture.facts for picture in pictures]
    return Batch(
        pixels=np.stack([model_pixels(picture.image) for picture in pictures]),
        labels=np.array([labels_of(each) for each in facts], dtype=np.int64),
        asked_about=asked_about,
        rows=_rows(facts[:asked_about], packer, plan.seed, step) if asked_about else None,
    )


def _rows(facts: list[Facts], packer: Packer, seed: int, step: int) -> Rows:
    rng = np.random.default_rng([seed, step])
    about = [(_prefix(packer, rng, image=True), turns_about(each, rng)) for each in facts]
    alone = [facts[i] for i in rng.permutation(len(facts))[: len(facts) // _PICTURES_PER_TEXT_ROW]]
    without = [(_prefix(packer, rng, image=False), turns_without_picture(each, rng)) for each in alone]
    return packer.rows(about + without)


def _prefix(packer: Packer, rng: np.random.Generator, *, image: bool) -> list[int]:
    system = str(rng.choice(OTHER_INSTRUCTIONS)) if rng.random() < _SYSTEM_SHARE else ""
    return packer.prefix(image=image, system=system)


def batches(plan: Plan) -> Iterator[Batch]:
    """Yield the batch of each step from the first on, drawn in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue: Queue[Batch] = context.Queue(_AHEAD)
    process = context.Process(target=_fill, args=(queue, plan), daemon=True)
    process.start()
    try:
        while True:
            yield queue.get()
    finally:
        process.terminate()


def _fill(queue: "Queue[Batch]", plan: Plan) -> None:
    os.nice(_NICENESS)
    packer, step = Packer(tokenizer.load(plan.model_folder)), plan.first_step
    while True:
        queue.put(draw_batch(plan, step, packer))
        step += 1
