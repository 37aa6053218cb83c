"""Checkpoints: an untrained one of the embedded model's shape, a damaged one, and what their tokens spell."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import (
    save_file,  # pyright: ignore[reportUnknownVariableType]  # safetensors leaves the parameter of PathLike open
)

EMBEDDED = Path(__file__).parents[1] / "models" / "mondrian-tiny"


def write_untrained(folder: Path, *, seed: int = 1) -> Path:
    """Write a checkpoint of the embedded model's shape with random weights, and return its folder.

    Its logits are nearly flat, so that it shows what a trained model's margins hide.
    """
    _copy_embedded(folder)
    random = np.random.default_rng(seed)
    weights = {
        name: _drawn(name, shape, random).astype(np.float16) for name, shape in sorted(_shapes(EMBEDDED).items())
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_truncated(folder: Path) -> Path:
    """Write the embedded model with the second half of its weights cut off, and return its folder."""
    _copy_embedded(folder)
    whole = (EMBEDDED / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    return folder


def parameters_of(folder: Path) -> int:
    """Return the number of parameters in a checkpoint's file."""
    return sum(math.prod(shape) for shape in _shapes(folder).values())


def spelled(ids: Sequence[int]) -> bytes:
    """Return the bytes that tokens of the embedded model's vocabulary spell, by the tokeniser's own table."""
    tokenizer = json.loads((EMBEDDED / "tokenizer.json").read_text())
    controls = {token["id"] for token in tokenizer["added_tokens"]}
    pieces = {id_: piece for piece, id_ in tokenizer["model"]["vocab"].items()}
    return b"".join(_piece_bytes(pieces[id_]) for id_ in ids if id_ not in controls)


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Read the shapes of a checkpoint's weights from its header: numpy has no bfloat16 to load the weights in."""
    with (folder / "model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def _copy_embedded(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for source in EMBEDDED.glob("*.json"):
        shutil.copy(source, folder)


def _drawn(
    name: str, shape: Sequence[int], random: np.random.Generator
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Return fresh values: norms at 1, biases at 0, matrices with the usual spread of an untrained network."""
    if "norm" in name and name.endswith("weight"):
        return np.ones(shape)
    if name.endswith("bias"):
        return np.zeros(shape)
    return random.normal(0.0, 0.05, shape)


def _piece_bytes(piece: str) -> bytes:
    """Undo GPT-2's printable stand-ins: each character of a piece stands for one byte."""
    return bytes(_BYTE_OF[character] for character in piece)


def _byte_of() -> dict[str, int]:
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_of()
