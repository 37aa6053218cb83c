"""Validation: every rule that a request's values must keep, each with the field that it names."""

import math
from dataclasses import dataclass

from mondrian_server.analyses.request import AnalysisRequest, Delivery
from mondrian_server.errors import InvalidImage, InvalidRequest
from mondrian_server.sampling import Sampling

MEBIBYTE = 1024 * 1024
MAX_STOP_STRINGS = 8
MAX_STOP_CHARACTERS = 256
MAX_REQUEST_ID_CHARACTERS = 64
MAX_INTERVAL_S = 60.0
MIN_PROGRESS_INTERVAL_S = 0.1
MAX_TOKENS_LIMIT = 1 << 24
"""More than any model's context; what does not fit the model at hand is the engine's to refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """The most that one request may hold."""

    max_prompt_characters: int = 32_000
    max_images: int = 8
    max_image_bytes: int = 20 * MEBIBYTE
    max_images_bytes: int = 24 * MEBIBYTE


def validate(request: AnalysisRequest, limits: RequestLimits) -> None:
    """Raise InvalidRequest, naming the field, for the first rule that the request breaks."""
    _validate_text(request, limits)
    _validate_images(request.images, limits)
    _validate_sampling(request.sampling)
    _validate_delivery(request.delivery)
    if request.time_limit_s is not None and not request.time_limit_s > 0:
        raise InvalidRequest("time_limit must be more than 0 s", field="config.time_limit")


def _validate_text(request: AnalysisRequest, limits: RequestLimits) -> None:
    if not request.prompt.strip() and not request.images:
        raise InvalidRequest("a prompt, an image or both are needed", field="config.prompt")
    for name, text in (("prompt", request.prompt), ("instructions", request.instructions)):
        if len(text) > limits.max_prompt_characters:
            raise InvalidRequest(
                f"{name} has {len(text):,} characters; at most {limits.max_prompt_characters:,} are accepted",
                field=f"config.{name}",
            )
    if request.advisor and request.instructions:
        raise InvalidRequest("advisor and instructions exclude each other", field="config.instructions")
    if len(request.request_id) > MAX_REQUEST_ID_CHARACTERS:
        raise InvalidRequest(f"request_id has more than {MAX_REQUEST_ID_CHARACTERS} characters", field="request_id")


def _validate_images(images: tuple[bytes, ...], limits: RequestLimits) -> None:
    if len(images) > limits.max_images:
        raise InvalidRequest(
            f"{len(images)} images were sent; at most {limits.max_images} are accepted", field="config.images"
        )
    for index, image in enumerate(images):
        if len(image) > limits.max_image_bytes:
            raise InvalidImage(
                f"the image has {_mebibytes(len(image))}; at most {_mebibytes(limits.max_image_bytes)} are accepted",
                field=f"config.images[{index}].data",
            )
    total = sum(map(len, images))
    if total > limits.max_images_bytes:
        raise InvalidRequest(
            f"the images have {_mebibytes(total)} in all; at most {_mebibytes(limits.max_images_bytes)} are accepted",
            field="config.images",
        )


def _validate_sampling(sampling: Sampling) -> None:
    _within("sampling.max_tokens", sampling.max_tokens, 1, MAX_TOKENS_LIMIT)
    _within("sampling.min_tokens", sampling.min_tokens, 0, MAX_TOKENS_LIMIT)
    _within("sampling.temperature", sampling.temperature, 0, 2)
    _within("sampling.top_p", sampling.top_p, 0, 1, open_below=True)
    _within("sampling.top_k", sampling.top_k, 0, MAX_TOKENS_LIMIT)
    _within("sampling.min_p", sampling.min_p, 0, 1)
    _within("sampling.repetition_penalty", sampling.repetition_penalty, 0, 2, open_below=True)
    if len(sampling.stop) > MAX_STOP_STRINGS:
        raise InvalidRequest(f"at most {MAX_STOP_STRINGS} stop strings are accepted", field="config.sampling.stop")
    for index, stop in enumerate(sampling.stop):
        if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            raise InvalidRequest(
                f"a stop string must have 1 to {MAX_STOP_CHARACTERS} characters", field=f"config.sampling.stop[{index}]"
            )


def _validate_delivery(delivery: Delivery) -> None:
    _within("delivery.token_interval", delivery.token_interval_s, 0, MAX_INTERVAL_S)
    _within("delivery.max_tokens", delivery.max_tokens, 0, MAX_TOKENS_LIMIT)
    _within("delivery.progress_interval", delivery.progress_interval_s, MIN_PROGRESS_INTERVAL_S, MAX_INTERVAL_S)


def _within(name: str, value: float | None, low: float, high: float, *, open_below: bool = False) -> None:
    """Raise InvalidRequest unless `value` is unset or a number from `low` (left out if `open_below`) to `high`."""
    if value is None:
        return
    if math.isnan(value) or not low <= value <= high or (open_below and value == low):
        bound = f"more than {low:g}" if open_below else f"at least {low:g}"
        raise InvalidRequest(
            f"{name.rpartition('.')[2]} is {_number(value)}; it must be {bound} and at most {_number(high)}",
            field=f"config.{name}",
        )


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _mebibytes(count: int) -> str:
    # Rounded up, so that what is refused never reads like the limit itself.
    return f"{math.ceil(count / MEBIBYTE * 10) / 10:.1f} MiB"
