"""Loading: a model folder or Hugging Face id becomes a model in memory, with bytes counted on the way."""

import enum
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mondrian_server.engine.process.layout import lay_out_for_cpu
from mondrian_server.engine.process.mlx_internals import keep_numpy
from mondrian_server.engine.process.mlx_typed import change_parameters, evaluate, member, parameters
from mondrian_server.engine.process.vocabulary import Vocabulary, read_vocabulary
from mondrian_server.engine.protocol import EngineConfig, Loading, ModelDescription

_LOG = logging.getLogger(__name__)


class Encodes(enum.Enum):
    """What is encoded at once, so that it can be kept for the next rows, and rows with it stay exact.

    APART: each picture; the embeddings are the text's with the pictures' features in their places, and nothing else.
    FRAME: the beginning of the prompt, up to the caller's text, with all pictures; what follows is text like any other.
    WHOLE: all of the prompt, because nothing is known of the architecture. Nothing is kept.
    """

    APART = enum.auto()
    FRAME = enum.auto()
    WHOLE = enum.auto()


_ENCODES: Mapping[str, Encodes] = {
    "smolvlm": Encodes.APART,
    "idefics3": Encodes.APART,
    "gemma3": Encodes.FRAME,
    "llava": Encodes.FRAME,
    "qwen2_5_vl": Encodes.FRAME,
    "qwen3_vl": Encodes.FRAME,
}
"""The architectures for which tests have shown it."""

_WIDEN_BELOW_BYTES = 4 * 1024**3
_REPORT_EVERY_S = 0.1


class LoadError(Exception):
    """The model cannot be loaded; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in memory and what the rest of the engine asks about it."""

    model: Any
    processor: Any
    config: Any
    vocabulary: Vocabulary
    description: ModelDescription
    encodes: Encodes
    placeholder: str
    image_token: int | None
    cache_bytes_per_token: int


def load(config: EngineConfig, report: Callable[[Loading], None]) -> LoadedModel:
    """Load the model that `config` names, telling `report` how far it has come; raises `LoadError`."""
    try:
        return _load(config, report)
    except Exception as error:
        _LOG.debug("loading failed", exc_info=True)
        raise LoadError(_explain(config.model, error)) from error


def _load(config: EngineConfig, report: Callable[[Loading], None]) -> LoadedModel:
    report(Loading(message=f"Loading {config.model}...", done_bytes=0, total_bytes=0))
    model, processor = member("mlx_vlm", "load")(config.model, lazy=True)
    _widen_on_cpu(model)
    weights = _evaluate(model, report)
    lay_out_for_cpu(model)
    keep_numpy(processor)
    vocabulary = read_vocabulary(processor, model.config)
    image_token = _image_token(model.config)
    placeholder = getattr(processor, "image_token", None)
    accepts_images = image_token is not None and isinstance(placeholder, str)
    return LoadedModel(
        model=model,
        processor=processor,
        config=model.config,
        vocabulary=vocabulary,
        description=_describe(model, config, weights, accepts_images=accepts_images),
        encodes=_ENCODES.get(str(model.config.model_type), Encodes.WHOLE),
        placeholder=placeholder if isinstance(placeholder, str) else "",
        image_token=image_token,
        cache_bytes_per_token=_cache_bytes_per_token(model),
    )


def _widen_on_cpu(model: Any) -> None:
    """Compute in float32 on the CPU: half the time of float16 there, and exact whatever the batch."""
    if mx.default_device().type != mx.DeviceType.cpu:
        return
    if sum(array.nbytes for _, array in parameters(model)) > _WIDEN_BELOW_BYTES:
        return
    halves = (mx.float16, mx.bfloat16)
    change_parameters(model, lambda a: a.astype(mx.float32) if a.dtype in halves else a)


def _evaluate(model: Any, report: Callable[[Loading], None]) -> int:
    """Read the weights from disk, parameter by parameter, and return their size in bytes."""
    arrays = [array for _, array in parameters(model)]
    total, done, reported = sum(array.nbytes for array in arrays), 0, 0.0
    for array in arrays:
        evaluate(array)
        done += array.nbytes
        if time.monotonic() - reported >= _REPORT_EVERY_S or done == total:
            reported = time.monotonic()
            report(Loading(message="Loading the model...", done_bytes=done, total_bytes=total))
    return total


def _describe(model: Any, config: EngineConfig, weights: int, *, accepts_images: bool) -> ModelDescription:
    quantization: dict[str, Any] = getattr(model.config, "quantization", None) or {}
    bits = int(quantization.get("bits", 0))
    return ModelDescription(
        architecture=str(model.config.model_type),
        context_tokens=_context_tokens(model.config, config.max_context_tokens),
        slots=config.slots,
        parameters=_parameters(model, bits),
        weights_bytes=weights,
        quantization_bits=bits,
        accepts_images=accepts_images,
    )


def _parameters(model: Any, bits: int) -> int:
    """Count parameters; packed weights hold several in each 32-bit word, and scales and biases are none."""
    count = 0
    for name, array in parameters(model):
        if bits and array.dtype == mx.uint32:
            count += array.size * 32 // bits
        elif not (bits and name.rsplit(".", 1)[-1] in ("scales", "biases")):
            count += array.size
    return count


def _context_tokens(config: Any, bound: int) -> int:
    text = getattr(config, "text_config", config)
    own = int(getattr(text, "max_position_embeddings", 0) or 0) or bound or 4096
    return min(own, bound) if bound else own


def _image_token(config: Any) -> int | None:
    for name in ("image_token_id", "image_token_index"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    return None


def _cache_bytes_per_token(model: Any) -> int:
    """Estimate what one token takes in the key and value caches; an over-estimate only makes the cache smaller."""
    language = model.language_model
    text = getattr(model.config, "text_config", model.config)
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", 1)
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * 4 * len(language.layers) * int(heads) * int(size)


def _explain(model: str, error: Exception) -> str:
    if not Path(model).exists() and (Path(model).is_absolute() or model.startswith(("./", "../", "~"))):
        return f"The model folder {model} does not exist."
    if isinstance(error, json.JSONDecodeError):
        return f"The model {model} cannot be loaded: a configuration file is not JSON: {one_line(error)}"
    return f"The model {model} cannot be loaded: {one_line(error)}"


def one_line(error: Exception) -> str:
    """Return the first line of an error's message that says something, or its type's name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
