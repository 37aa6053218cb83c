"""Arguments to the wire request, with the field named where a value cannot be sent."""

import uuid
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar, Unpack

from google.protobuf import duration_pb2

from mondrian._errors import FieldViolation, InvalidRequest
from mondrian._options import AnalyzeOptions, Delivery, Sampling, TokenDetail
from mondrian._results import AnalysisState
from mondrian.v1 import analysis_pb2, analysis_service_pb2

_SAMPLING_FIELDS = (
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "seed",
)

_Request = TypeVar("_Request", analysis_service_pb2.AnalyzeRequest, analysis_service_pb2.CreateAnalysisRequest)


class _Message(Protocol):
    def __setattr__(self, name: str, value: object, /) -> None: ...


def make_analyze_request(
    prompt: str, *, disconnect_grace: float, **options: Unpack[AnalyzeOptions]
) -> analysis_service_pb2.AnalyzeRequest:
    """Return the request without its images, as `make_request` does."""
    request = make_request(analysis_service_pb2.AnalyzeRequest, prompt, **options)
    _put_duration(request.disconnect_grace, disconnect_grace, "disconnect_grace")
    return request


def make_list_request(states: Iterable[AnalysisState], page_size: int) -> analysis_service_pb2.ListAnalysesRequest:
    """Return the request of the first page."""
    wanted = [analysis_pb2.AnalysisState.ValueType(state) for state in states]
    return analysis_service_pb2.ListAnalysesRequest(page_size=page_size, states=wanted)


def make_request(
    kind: type[_Request],
    prompt: str,
    *,
    advisor: str = "",
    instructions: str = "",
    model: str = "",
    sampling: Sampling | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    token_detail: TokenDetail | None = None,
    delivery: Delivery | None = None,
    time_limit: float | None = None,
    request_id: str = "",
) -> _Request:
    """Return the request without its images; it has a name of its own, so that it can be repeated.

    Raises:
        InvalidRequest: a value cannot be sent at all; what is out of range is for the server to say.
    """
    own = Sampling(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )
    request = kind()
    _put(request, "request_id", request_id or uuid.uuid4().hex, "request_id")
    config = request.config
    for name, value in (("prompt", prompt), ("advisor", advisor), ("instructions", instructions), ("model", model)):
        _put(config, name, value, f"config.{name}")
    _put_sampling(config.sampling, _merged(own, sampling or Sampling()))
    _put_token_detail(config, token_detail)
    _put_delivery(config, delivery)
    _put_duration(config.time_limit, time_limit, "config.time_limit")
    return request


def _merged(own: Sampling, base: Sampling) -> Sampling:
    given = {name: getattr(own, name) for name in _SAMPLING_FIELDS if getattr(own, name) is not None}
    return replace(base, **given, stop=own.stop or base.stop)


def _put_sampling(message: analysis_pb2.Sampling, sampling: Sampling) -> None:
    for name in _SAMPLING_FIELDS:
        value = getattr(sampling, name)
        if value is not None:
            _put(message, name, value, f"config.sampling.{name}")
    for index, text in enumerate(sampling.stop):
        with _named(f"config.sampling.stop[{index}]"):
            message.stop.append(text)


def _put_token_detail(config: analysis_pb2.AnalysisConfig, detail: TokenDetail | None) -> None:
    if detail is not None:
        config.token_detail.ids = detail.ids
        config.token_detail.log_probabilities = detail.log_probabilities


def _put_delivery(config: analysis_pb2.AnalysisConfig, delivery: Delivery | None) -> None:
    if delivery is None:
        return
    message = config.delivery
    _put_duration(message.token_interval, delivery.token_interval_s, "config.delivery.token_interval")
    _put_duration(message.progress_interval, delivery.progress_interval_s, "config.delivery.progress_interval")
    _put(message, "max_tokens", delivery.max_tokens, "config.delivery.max_tokens")
    message.at_sentence_end = delivery.at_sentence_end


def _put_duration(message: duration_pb2.Duration, seconds: float | None, field: str) -> None:
    if seconds is None:
        return
    with _named(field):
        message.FromNanoseconds(round(seconds * 1e9))
    message.SetInParent()


def _put(message: _Message, name: str, value: object, field: str) -> None:
    with _named(field):
        setattr(message, name, value)


@contextmanager
def _named(field: str) -> Generator[None]:
    try:
        yield
    except (ValueError, OverflowError) as error:
        violation = FieldViolation(field=field, description=f"cannot be sent: {error}")
        raise InvalidRequest(f"{field} {violation.description}", field_violations=(violation,)) from error
