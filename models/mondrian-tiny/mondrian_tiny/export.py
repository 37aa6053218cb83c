"""Export: writes a model folder that mlx-vlm and transformers both load."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from mondrian_tiny import shape


def write_model(folder: Path, weights: Mapping[str, torch.Tensor], tokenizer: Tokenizer) -> None:
    """Write weights (as bfloat16), tokenizer and every configuration file into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in config_files().items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def config_files() -> dict[str, dict[str, Any]]:
    """Name each configuration file and its content."""
    return {
        "config.json": shape.model_config(),
        "generation_config.json": shape.generation_config(),
        "tokenizer_config.json": shape.tokenizer_config(),
        "preprocessor_config.json": shape.image_processor_config(),
        "processor_config.json": shape.processor_config(),
        "chat_template.json": {"chat_template": shape.CHAT_TEMPLATE},
    }
