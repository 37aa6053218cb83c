"""Validation: every rule of a request, each refusal with the field that it names."""

import math
from dataclasses import replace
from typing import Any

import pytest

from mondrian_server.analyses.request import AnalysisRequest, Delivery
from mondrian_server.analyses.validation import MEBIBYTE, RequestLimits, validate
from mondrian_server.errors import InvalidImage, InvalidRequest
from mondrian_server.sampling import Sampling

LIMITS = RequestLimits(max_prompt_characters=100, max_images=2, max_image_bytes=MEBIBYTE, max_images_bytes=1_500_000)
NUMBERS = [
    # field, the least and the greatest accepted, the nearest refused on either side
    ("max_tokens", 1, 1 << 24, 0, (1 << 24) + 1),
    ("min_tokens", 0, 1 << 24, -1, (1 << 24) + 1),
    ("temperature", 0.0, 2.0, -1e-9, 2.000001),
    ("top_p", 1e-9, 1.0, 0.0, 1.000001),
    ("top_k", 0, 1 << 24, -1, (1 << 24) + 1),
    ("min_p", 0.0, 1.0, -1e-9, 1.000001),
    ("repetition_penalty", 1e-9, 2.0, 0.0, 2.000001),
]
INTERVALS = [
    ("token_interval_s", "token_interval", 0.0, 60.0, -1e-9, 60.1),
    ("max_tokens", "max_tokens", 0, 1 << 24, -1, (1 << 24) + 1),
    ("progress_interval_s", "progress_interval", 0.1, 60.0, 0.099, 60.1),
]


def refusal(request: AnalysisRequest) -> InvalidRequest:
    """Return the error that a request is refused with."""
    with pytest.raises(InvalidRequest) as caught:
        validate(request, LIMITS)
    return caught.value


def asking(**changes: Any) -> AnalysisRequest:
    """Return a request that is fine but for the changes."""
    return replace(AnalysisRequest(prompt="What is it?"), **changes)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(asking(), id="text only"),
        pytest.param(AnalysisRequest(images=(b"x",)), id="image only"),
        pytest.param(asking(images=(b"x", b"y")), id="both"),
        pytest.param(asking(prompt="x" * 100, instructions="y" * 100), id="as long as may be"),
        pytest.param(asking(prompt="héllo 根據您的問題 💭 <image>"), id="any characters"),
        pytest.param(asking(images=(bytes(MEBIBYTE),)), id="as large as may be"),
        pytest.param(asking(images=(bytes(750_000), bytes(750_000))), id="as large in all as may be"),
        pytest.param(asking(request_id="x" * 64), id="long request id"),
        pytest.param(asking(time_limit_s=1e-9), id="short limit"),
        pytest.param(asking(sampling=Sampling(stop=("x" * 256,) * 8)), id="stop strings"),
    ],
)
def test_what_keeps_the_rules_is_accepted(request_: AnalysisRequest) -> None:
    """The limits themselves are inside."""
    validate(request_, LIMITS)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        pytest.param(AnalysisRequest(), "config.prompt", id="nothing"),
        pytest.param(AnalysisRequest(prompt=" \n\t"), "config.prompt", id="blank prompt without image"),
        pytest.param(AnalysisRequest(instructions="Be brief."), "config.prompt", id="instructions alone"),
        pytest.param(asking(prompt="x" * 101), "config.prompt", id="long prompt"),
        pytest.param(asking(instructions="x" * 101), "config.instructions", id="long instructions"),
        pytest.param(asking(advisor="ansel", instructions="x"), "config.instructions", id="advisor and instructions"),
        pytest.param(asking(request_id="x" * 65), "request_id", id="long request id"),
        pytest.param(asking(images=(b"x",) * 3), "config.images", id="many images"),
        pytest.param(asking(images=(bytes(750_001), bytes(750_000))), "config.images", id="large images in all"),
        pytest.param(asking(time_limit_s=0.0), "config.time_limit", id="no time"),
        pytest.param(asking(time_limit_s=-1.0), "config.time_limit", id="negative time"),
        pytest.param(asking(time_limit_s=math.nan), "config.time_limit", id="NaN time"),
        pytest.param(asking(sampling=Sampling(stop=("x",) * 9)), "config.sampling.stop", id="many stop strings"),
        pytest.param(asking(sampling=Sampling(stop=("x", ""))), "config.sampling.stop[1]", id="empty stop string"),
        pytest.param(asking(sampling=Sampling(stop=("x" * 257,))), "config.sampling.stop[0]", id="long stop string"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_its_field(request_: AnalysisRequest, field: str) -> None:
    """The error names the path of the field at fault."""
    error = refusal(request_)
    assert error.field == field
    assert error.message


def test_a_large_image_is_refused_by_its_index() -> None:
    """An image over the limit is an InvalidImage that names which and how large."""
    error = refusal(asking(images=(b"x", bytes(MEBIBYTE + MEBIBYTE // 2))))
    assert isinstance(error, InvalidImage)
    assert error.field == "config.images[1].data"
    assert "1.5 MiB" in error.message


@pytest.mark.parametrize(("name", "low", "high", "below", "above"), NUMBERS)
def test_sampling_numbers_have_bounds(name: str, low: float, high: float, below: float, above: float) -> None:
    """Both bounds are inside; just outside, infinities and NaN are refused by the field's name."""
    for accepted in (None, low, high):
        validate(asking(sampling=replace(Sampling(), **{name: accepted})), LIMITS)
    for value in (below, above, math.inf, -math.inf, math.nan):
        error = refusal(asking(sampling=replace(Sampling(), **{name: value})))
        assert error.field == f"config.sampling.{name}"
        assert name in error.message


@pytest.mark.parametrize(("name", "field", "low", "high", "below", "above"), INTERVALS)
def test_delivery_numbers_have_bounds(
    name: str, field: str, low: float, high: float, below: float, above: float
) -> None:
    """Both bounds are inside; just outside, infinities and NaN are refused by the field's name in the contract."""
    for accepted in (low, high):
        validate(asking(delivery=replace(Delivery(), **{name: accepted})), LIMITS)
    for value in (below, above, math.inf, -math.inf, math.nan):
        error = refusal(asking(delivery=replace(Delivery(), **{name: value})))
        assert error.field == f"config.delivery.{field}"


def test_unset_intervals_are_left_to_the_server() -> None:
    """An interval that is not given breaks no rule."""
    validate(asking(delivery=Delivery(token_interval_s=None, progress_interval_s=None)), LIMITS)


def test_every_number_of_sampling_has_a_rule() -> None:
    """Each field is bounded here, but for the seed, whose every value is fine."""
    bounded = {name for name, *_ in NUMBERS}
    assert set(Sampling.__dataclass_fields__) - bounded == {"seed", "stop"}


def test_a_refusal_does_not_repeat_a_long_text() -> None:
    """What a caller sent is not echoed."""
    assert "x" * 30 not in refusal(asking(prompt="x" * 101)).message
    assert "x" * 30 not in refusal(asking(sampling=Sampling(stop=("x" * 300,)))).message
