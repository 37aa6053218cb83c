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

from mondrian_server.engine.process.hub import DownloadError, find
from mondrian_server.engine.process.linear_layers import speed_up_linear_layers
from mondrian_server.engine.process.mlx_internals import keep_numpy
from mondrian_server.engine.process.mlx_typed import change_parameters, evaluate, member, parameters
from mondrian_server.engine.process.prompts import PromptFormat, read_format
from mondrian_server.engine.process.remote_code import asks_for_trust, refuse_remote_code
from mondrian_server.engine.process.thinking import Budget, read_budget
from mondrian_server.engine.process.vocabulary import IMAGE_TOKEN_NAMES, Vocabulary, read_vocabulary
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

_PATH_STARTS = ("./", "../", "~")
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
    format: PromptFormat
    budget: Budget | None
    encodes: Encodes
    placeholder: str
    image_token: int | None
    cache_bytes_per_token: int


def load(config: EngineConfig, report: Callable[[Loading], None]) -> LoadedModel:
    """Load the model that `config` names, telling `report` how far it has come; raises `LoadError`."""
    try:
        return _load(config, report)
    except LoadError:
        raise
    except Exception as error:
        _LOG.debug("loading failed", exc_info=True)
        raise LoadError(_explain(config.model, error)) from error


def _load(config: EngineConfig, report: Callable[[Loading], None]) -> LoadedModel:
    _check_adapter(config.adapter)
    folder = _find(config, report)
    report(Loading(message=f"Loading {config.model}...", done_bytes=0, total_bytes=0))
    trusted = config.trust_remote_code
    if not trusted:
        refuse_remote_code(folder)
    model, processor = member("mlx_vlm", "load")(
        str(folder), adapter_path=config.adapter or None, lazy=True, trust_remote_code=trusted
    )
    _check_adapter_weights(model, config.adapter)
    _check_kv_groups(model.config, config)
    _widen_on_cpu(model)
    weights = _evaluate(model, report)
    encodes = _ENCODES.get(str(model.config.model_type), Encodes.WHOLE)
    speed_up_linear_layers(model, apart=encodes is not Encodes.WHOLE)
    keep_numpy(processor)
    vocabulary = read_vocabulary(processor, model.config)
    chat = read_format(processor, model.config, thinking=config.thinking)
    image_token = _image_token(model.config)
    placeholder = getattr(processor, "image_token", None)
    shows = isinstance(placeholder, str) or getattr(processor, "image_processor", None) is not None
    accepts_images = image_token is not None and shows
    return LoadedModel(
        model=model,
        processor=processor,
        config=model.config,
        vocabulary=vocabulary,
        description=_describe(model, config, weights, accepts_images=accepts_images),
        format=chat,
        budget=read_budget(chat.tokenizer, chat.frame(0).after, config.thinking_budget_tokens),
        encodes=encodes,
        placeholder=placeholder if isinstance(placeholder, str) else "",
        image_token=image_token,
        cache_bytes_per_token=_cache_bytes_per_token(model),
    )


def _find(config: EngineConfig, report: Callable[[Loading], None]) -> Path:
    """Return the folder of the model, downloading it if it is a Hugging Face id."""
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or config.model.startswith(_PATH_STARTS):
        raise LoadError(f"The model folder {config.model} does not exist.")
    return find(config.model, code=config.trust_remote_code, stall_limit_s=config.download_stall_limit_s, report=report)


def _check_adapter(adapter: str) -> None:
    """Raise LoadError where there is no adapter of that name."""
    if adapter and not Path(adapter).is_dir():
        raise LoadError(f"adapter_path: the folder {adapter} does not exist.")
    if adapter and not (Path(adapter) / "adapter_config.json").is_file():
        raise LoadError(f"adapter_path: the folder {adapter} holds no adapter, because it has no adapter_config.json.")


def _check_adapter_weights(model: Any, adapter: str) -> None:
    """Raise LoadError where an adapter is one for another model; mlx-vlm 0.7.10 leaves out what has no place."""
    places = {name for name, _ in parameters(model)}
    for file in Path(adapter).glob("*.safetensors") if adapter else ():
        names: dict[str, Any] = member("mlx.core", "load")(str(file))
        if strangers := names.keys() - places:
            raise LoadError(f"adapter_path: {len(strangers)} weights in {adapter} have no place in the model.")


def _check_kv_groups(model: Any, config: EngineConfig) -> None:
    """Raise LoadError where keys and values cannot be quantised in groups of that size."""
    size = _head_size(model)
    if config.kv_bits and size % config.kv_group_size:
        groups = f"kv_cache_group_size is {config.kv_group_size}"
        raise LoadError(f"{groups}, and must divide the head size of the model {config.model}, which is {size}.")


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
        kv_cache_bits=config.kv_bits,
        kv_cache_group_size=config.kv_group_size if config.kv_bits else 0,
        adapter=Path(config.adapter).name,
        thinking=config.thinking,
        thinking_budget_tokens=config.thinking_budget_tokens,
        trusts_remote_code=config.trust_remote_code,
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
    for name in IMAGE_TOKEN_NAMES:
        if isinstance(value := getattr(config, name, None), int):
            return value
    return None


def _cache_bytes_per_token(model: Any) -> int:
    """Estimate what one token takes in the key and value caches; an over-estimate only makes the cache smaller."""
    language = model.language_model
    text = getattr(model.config, "text_config", model.config)
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", 1)
    return 2 * 4 * len(language.layers) * int(heads) * _head_size(model.config)


def _head_size(config: Any) -> int:
    text = getattr(config, "text_config", config)
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _explain(model: str, error: Exception) -> str:
    if isinstance(error, DownloadError):
        return f"The model {model} cannot be downloaded: {error}."
    if asks_for_trust(error):
        return f"The model {model} cannot be loaded: it needs Python code of its own; see trust_remote_code."
    if isinstance(error, json.JSONDecodeError):
        return f"The model {model} cannot be loaded: a configuration file is not JSON: {one_line(error)}"
    return f"The model {model} cannot be loaded: {one_line(error)}"


def one_line(error: Exception) -> str:
    """Return what an error's message says first, with what follows a colon at the end of a line, or its type's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = next((n for n, line in enumerate(lines, start=1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:last]) or type(error).__name__
