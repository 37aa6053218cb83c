"""Checkpoints with one peculiarity each, for what the ordinary ones do not show."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import (
    load_file,  # pyright: ignore[reportUnknownVariableType]  # safetensors leaves the parameter of PathLike open
    save_file,  # pyright: ignore[reportUnknownVariableType]  # the same
)

_HEAD = "lm_head.weight"

_STUMBLING = """
from mlx_vlm.models.{architecture} import *
from mlx_vlm.models.{architecture} import LanguageModel as Steady, Model as SteadyModel


class LanguageModel(Steady):
    def __call__(self, inputs, inputs_embeds=None, **options):
        if inputs_embeds is None:
            self.steps = getattr(self, "steps", 0) + 1
            if STUMBLES(self.steps, inputs.shape[0]):
                raise RuntimeError("this step fails")
        elif PREFILL_STUMBLES(inputs_embeds.shape[1], inputs.tolist()[0]):
            raise RuntimeError("this prompt fails")
        return super().__call__(inputs, inputs_embeds=inputs_embeds, **options)


class Model(SteadyModel):
    def __init__(self, config):
        super().__init__(config)
        self.language_model.__class__ = LanguageModel

    def get_input_embeddings(self, input_ids=None, pixel_values=None, **options):
        if pixel_values is not None and ENCODE_STUMBLES(pixel_values):
            raise RuntimeError("this picture fails")
        return super().get_input_embeddings(input_ids, pixel_values, **options)
"""


def write_terse(source: Path, folder: Path, end: int) -> Path:
    """Write a checkpoint that ends its turn soon: the token `end` stands out in its logits."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    weights[_HEAD] = weights[_HEAD].copy()
    weights[_HEAD][end] *= 16
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_stumbling(
    source: Path, folder: Path, *, step: str = "False", prompt: str = "False", picture: str = "False"
) -> Path:
    """Write a checkpoint whose own model code raises, and which is loaded only where that is trusted.

    Args:
        source: the folder of the checkpoint to copy.
        folder: where to write.
        step: a condition on `n`, the count of decode steps, and `rows`.
        prompt: a condition on `tokens`, the length of a chunk of a prompt, and `ids`, its token ids.
        picture: a condition on `pixels`, those that are encoded at once.
    """
    shutil.copytree(source, folder)
    code = f"STUMBLES = lambda n, rows: {step}\nPREFILL_STUMBLES = lambda tokens, ids: {prompt}\n"
    code += f"ENCODE_STUMBLES = lambda pixels: {picture}\n"
    architecture = json.loads((folder / "config.json").read_text())["model_type"]
    (folder / "stumbling.py").write_text(code + _STUMBLING.replace("{architecture}", architecture))
    return change_config(folder, model_file="stumbling.py")


def change_config(folder: Path, **changes: Any) -> Path:
    """Change entries of a checkpoint's `config.json`."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder
