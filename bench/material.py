"""Material: the checkpoint, the pictures and the prompts that every contender gets alike."""

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image, ImageDraw

EMBEDDED = Path(__file__).parents[1] / "models" / "mondrian-tiny"

QUESTIONS = (
    "Describe this image in detail.",
    "Which colour dominates? Describe it in detail.",
    "Where does the light come from? Is it dark or bright?",
    "How is it balanced? Describe the planes in detail.",
    "How many shapes are there, and where? Describe each.",
)
ADVICE = (
    "You are Mondrian, a painter. Look for planes, lines and balance.",
    "You are Albers, a teacher of colour. Look at the colours and their relations.",
    "You are Ansel, a photographer. Look at light, tone and contrast.",
    "You are Arbus. Look at what is strange, and at what stands at the edge.",
    "You are Klee. Look at the line, and at where it walks.",
)
SIZE = (512, 384)


def write_endless(folder: Path, end: int = 2) -> Path:
    """Write the embedded model with its end of turn silenced, so that every answer has its full length everywhere."""
    shutil.copytree(EMBEDDED, folder, ignore=shutil.ignore_patterns("mondrian_tiny", "samples", "README.md"))
    weights = dict(mx.load(str(EMBEDDED / "model.safetensors")))
    head = weights["lm_head.weight"]
    rows = mx.arange(head.shape[0])[:, None]
    weights["lm_head.weight"] = mx.where(rows == end, mx.zeros_like(head), head)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    return folder


def write_pictures(folder: Path, count: int, seed: int) -> list[str]:
    """Draw pictures that are all different and return their paths. No two seeds give the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed}-{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            _draw(random.Random(f"{seed} {number}")).save(path)  # noqa: S311 # nothing secret
    return [str(path) for path in paths]


def _draw(chance: random.Random) -> Image.Image:
    width, height = SIZE
    corners = np.array([[[chance.randrange(256) for _ in range(3)] for _ in range(2)] for _ in range(2)], np.uint8)
    image = Image.fromarray(corners).resize(SIZE, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        x, y, size = chance.randrange(width), chance.randrange(height), chance.randrange(20, 160)
        colour = tuple(chance.randrange(256) for _ in range(3))
        shape = chance.choice((draw.ellipse, draw.rectangle))
        shape((x, y, x + size, y + size), fill=colour)
    return image


def question(number: int) -> str:
    """Return a question; they are all different."""
    return f"{QUESTIONS[number % len(QUESTIONS)]} This is picture {number}."


def long_prompt(tokens: int, encode: Callable[[str], Sequence[int]]) -> str:
    """Return a text of about so many tokens."""
    words: Sequence[str] = ("the", "light", "falls", "on", "a", "red", "plane", "and", "the", "line", "is", "still")
    chance, text = random.Random(tokens), "Read this and say what it is about."  # noqa: S311 # nothing secret
    while len(encode(text)) < tokens:
        text += " " + " ".join(chance.choices(words, k=10))
    return text
