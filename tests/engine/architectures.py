"""Tiny untrained checkpoints of several architectures, in the files that mlx-vlm reads, with nearly flat logits."""

import importlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import (
    load_file,  # pyright: ignore[reportUnknownVariableType]  # safetensors leaves the parameter of PathLike open
    save_file,  # pyright: ignore[reportUnknownVariableType]  # safetensors leaves the parameter of PathLike open
)

from tests.engine.tokenisers import GEMMA, IDEFICS, QWEN, VICUNA, Spelling

_HIDDEN = 32
_TEXT: dict[str, Any] = {
    "hidden_size": _HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 1024,
    "rope_theta": 10000.0,
}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_MEANS: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the folder of one architecture holds.

    config: the contents of `config.json`, made from the ids of the control tokens and the size of the vocabulary.
    placeholder: what a caller could type that the model takes for an image; empty where it takes none.
    """

    name: str
    spelling: Spelling
    config: Callable[[Mapping[str, int], int], dict[str, Any]]
    placeholder: str = ""
    processor: str = ""
    preprocessor: Mapping[str, Any] | None = None
    processor_config: Mapping[str, Any] | None = None

    def frame(self, pictures: int, text: str) -> str:
        """Return a turn in the chat format, written out by hand: the pictures, then the text."""
        return self.spelling.turn.format(pictures=self.spelling.picture * pictures, text=text)


def _qwen_config(ids: Mapping[str, int], size: int) -> dict[str, Any]:
    return {
        "vocab_size": size,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "eos_token_id": ids["<|im_end|>"],
        "tie_word_embeddings": False,
    }


def _qwen2_5_vl(ids: Mapping[str, int], size: int) -> dict[str, Any]:
    vision = {
        "model_type": "qwen2_5_vl",
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": _HIDDEN,
        "num_heads": 2,
        "patch_size": 8,
        "spatial_patch_size": 8,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    rope = {"type": "mrope", "mrope_section": [2, 3, 3]}
    return _TEXT | _qwen_config(ids, size) | {"vision_config": vision, "rope_scaling": rope}


def _qwen2_vl(ids: Mapping[str, int], size: int) -> dict[str, Any]:
    vision = {
        "model_type": "qwen2_vl",
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": _HIDDEN,
        "mlp_ratio": 2,
        "num_heads": 2,
        "patch_size": 8,
    }
    rope = {"type": "mrope", "mrope_section": [2, 3, 3]}
    return _TEXT | _qwen_config(ids, size) | {"vision_config": vision, "rope_scaling": rope}


def _qwen3_vl(ids: Mapping[str, int], size: int) -> dict[str, Any]:
    vision = {
        "model_type": "qwen3_vl",
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": _HIDDEN,
        "num_heads": 2,
        "patch_size": 8,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    text = _TEXT | {
        "model_type": "qwen3_vl_text",
        "head_dim": 16,
        "vocab_size": size,
        "rope_scaling": {"type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True},
    }
    return _qwen_config(ids, size) | {"text_config": text, "vision_config": vision}


def _gemma3(ids: Mapping[str, int], size: int) -> dict[str, Any]:
    text = _TEXT | {
        "model_type": "gemma3_text",
        "num_hidden_layers": 4,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "vocab_size": size,
        "sliding_window": 24,
        "sliding_window_pattern": 2,
        "mm_tokens_per_image": 4,
    }
    return {
        "text_config": text,
        "vision_config": _VISION | {"model_type": "siglip_vision_model"},
        "hidden_size": _HIDDEN,
        "vocab_size": size,
        "image_token_index": ids["<image_soft_token>"],
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "pad_token_id": ids["<pad>"],
        "eos_token_id": [ids["<eos>"], ids["<end_of_turn>"]],
    }


def _llava(ids: Mapping[str, int], size: int) -> dict[str, Any]:
    return {
        "text_config": _TEXT | {"model_type": "llama", "vocab_size": size},
        "vision_config": _VISION | {"model_type": "clip_vision_model", "projection_dim": 32},
        "image_token_index": ids["<image>"],
        "vocab_size": size,
        "eos_token_id": ids["</s>"],
    }


def _idefics3(ids: Mapping[str, int], size: int) -> dict[str, Any]:
    return {
        "text_config": _TEXT | {"model_type": "llama", "vocab_size": size},
        "vision_config": _VISION | {"model_type": "idefics3_vision"},
        "scale_factor": 2,
        "image_token_id": ids["<image>"],
        "vocab_size": size,
        "eos_token_id": ids["<end_of_utterance>"],
    }


def _qwen2(ids: Mapping[str, int], size: int) -> dict[str, Any]:
    return _TEXT | {"vocab_size": size, "eos_token_id": ids["<|im_end|>"], "tie_word_embeddings": False}


_QWEN_IMAGES: dict[str, Any] = _MEANS | {
    "patch_size": 8,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_pixels": 16 * 16,
    "max_pixels": 64 * 48,
}
_SQUARE: dict[str, Any] = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
_SIDE: dict[str, int] = {"height": 32, "width": 32}

ARCHITECTURES: Mapping[str, Architecture] = {
    one.name: one
    for one in (
        Architecture(
            name="qwen2_5_vl",
            spelling=QWEN,
            config=_qwen2_5_vl,
            placeholder="<|image_pad|>",
            processor="Qwen2_5_VLProcessor",
            preprocessor=_QWEN_IMAGES | {"image_processor_type": "Qwen2VLImageProcessor"},
        ),
        Architecture(
            name="qwen2_vl",
            spelling=QWEN,
            config=_qwen2_vl,
            placeholder="<|image_pad|>",
            processor="Qwen2VLProcessor",
            preprocessor=_QWEN_IMAGES | {"image_processor_type": "Qwen2VLImageProcessor"},
        ),
        Architecture(
            name="qwen3_vl",
            spelling=QWEN,
            config=_qwen3_vl,
            placeholder="<|image_pad|>",
            processor="Qwen3VLProcessor",
            preprocessor=_QWEN_IMAGES | {"image_processor_type": "Qwen2VLImageProcessor"},
        ),
        Architecture(
            name="gemma3",
            spelling=GEMMA,
            config=_gemma3,
            placeholder="<image_soft_token>",
            processor="Gemma3Processor",
            preprocessor=_SQUARE | _MEANS | {"image_processor_type": "Gemma3ImageProcessor", "size": _SIDE},
            processor_config={"image_seq_length": 4},
        ),
        Architecture(
            name="llava",
            spelling=VICUNA,
            config=_llava,
            placeholder="<image>",
            processor="LlavaProcessor",
            preprocessor=_SQUARE
            | _MEANS
            | {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 32},
                "crop_size": _SIDE,
                "do_center_crop": True,
            },
            processor_config={
                "patch_size": 8,
                "vision_feature_select_strategy": "default",
                "num_additional_image_tokens": 1,
            },
        ),
        Architecture(
            name="idefics3",
            spelling=IDEFICS,
            config=_idefics3,
            placeholder="<image>",
            processor="Idefics3Processor",
            preprocessor=_SQUARE
            | _MEANS
            | {
                "image_processor_type": "Idefics3ImageProcessor",
                "size": {"longest_edge": 64},
                "max_image_size": {"longest_edge": 32},
                "do_image_splitting": True,
                "do_convert_rgb": True,
                "do_pad": True,
            },
            processor_config={"image_seq_len": 4},
        ),
        Architecture(name="qwen2", spelling=QWEN, config=_qwen2),
    )
}


def write_architecture(name: str, folder: Path, *, seed: int = 1, **changes: Any) -> Path:
    """Write a checkpoint of an architecture with random weights, and return its folder.

    `changes` are other entries of its configuration.
    """
    architecture = ARCHITECTURES[name]
    folder.mkdir(parents=True)
    ids, size = _write_tokenizer(architecture, folder)
    config = {"model_type": name} | architecture.config(ids, size) | changes
    _write(folder / "config.json", config)
    if architecture.preprocessor is not None:
        _write(folder / "preprocessor_config.json", architecture.preprocessor)
        named = {"processor_class": architecture.processor} | dict(architecture.processor_config or {})
        _write(folder / "processor_config.json", named)
    random = np.random.default_rng(seed)
    weights = {key: _drawn(key, shape, random).astype(np.float16) for key, shape in sorted(_shapes(config).items())}
    save_file(weights, folder / "model.safetensors", metadata={"format": "mlx"})
    return folder


def write_insisting(source: Path, folder: Path, token: int) -> Path:
    """Write a copy of a checkpoint whose logits of one token stand far out, up or down, and return its folder."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    (head,) = (name for name in weights if name.endswith("lm_head.weight"))
    weights[head] = weights[head].copy()
    weights[head][token] *= 16
    save_file(weights, folder / "model.safetensors", metadata={"format": "mlx"})
    return folder


def ids_of_controls(folder: Path) -> dict[str, int]:
    """Return the ids of a checkpoint's added tokens."""
    return {token["content"]: token["id"] for token in _tokenizer(folder)["added_tokens"]}


def id_of_piece(folder: Path, piece: str) -> int:
    """Return the id of a piece of a checkpoint's vocabulary."""
    return _tokenizer(folder)["model"]["vocab"][piece]


def _tokenizer(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "tokenizer.json").read_text())


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights of mlx-vlm's own model class."""
    package: Any = importlib.import_module(f"mlx_vlm.models.{config['model_type']}")
    copy: Any = json.loads(json.dumps(config))
    made = package.ModelConfig.from_dict(copy)
    utils: Any = importlib.import_module("mlx_vlm.utils")
    made = utils.update_module_configs(made, package, copy, ["text", "vision"])
    flat: list[tuple[str, Any]] = importlib.import_module("mlx.utils").tree_flatten(package.Model(made).parameters())
    return {name: tuple(array.shape) for name, array in flat}


def _drawn(
    name: str, shape: Sequence[int], random: np.random.Generator
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Return fresh values: norms at 1, biases at 0, the rest with a spread that keeps the logits nearly flat."""
    if "norm" in name and name.endswith("weight"):
        return np.ones(shape)
    if name.endswith("bias"):
        return np.zeros(shape)
    return random.normal(0.0, 0.2, shape)


def _write_tokenizer(architecture: Architecture, folder: Path) -> tuple[dict[str, int], int]:
    """Write the tokeniser's files; return the ids of its control tokens and the size of its vocabulary."""
    spelling = architecture.spelling
    whole = spelling.tokeniser()
    _write(folder / "tokenizer.json", whole)
    named = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": spelling.template,
        "clean_up_tokenization_spaces": False,
        **({"processor_class": architecture.processor} if architecture.processor else {}),
    }
    _write(folder / "tokenizer_config.json", named | dict(spelling.names))
    ids = {token["content"]: token["id"] for token in whole["added_tokens"]}
    return ids, 1 + max(*ids.values(), *whole["model"]["vocab"].values())


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content))
