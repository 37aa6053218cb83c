"""Wire messages to values: the one place that reads `mondrian.v1`."""

from datetime import UTC, datetime
from enum import IntEnum
from typing import TypedDict, TypeVar

from google.protobuf import duration_pb2, timestamp_pb2

from mondrian._catalogue import Advisor, Model, ModelState
from mondrian._events import Accepted, Completed, Event, Progress, Token
from mondrian._options import Sampling
from mondrian._results import AnalysisState, FinishReason, Stage, Timings, Usage
from mondrian.v1 import advisor_service_pb2, analysis_pb2, model_service_pb2

_E = TypeVar("_E", bound=IntEnum)


class Recorded(TypedDict):
    """What stands around an event's payload."""

    sequence: int
    analysis: str
    create_time: datetime
    advisor: str


def event_from_wire(message: analysis_pb2.Event) -> Event | None:
    """Return the event, or None for one that ends the stream by an error or that this version does not know."""
    recorded = Recorded(
        sequence=message.sequence,
        analysis=message.analysis,
        create_time=time_from_wire(message.create_time),
        advisor=message.advisor,
    )
    match message.WhichOneof("payload"):
        case "token":
            return _token(message.token, recorded)
        case "progress":
            return progress_from_wire(message.progress, recorded)
        case "accepted":
            return _accepted(message.accepted, recorded)
        case "completed":
            return _completed(message.completed, recorded)
        case _:
            return None


def _accepted(message: analysis_pb2.Accepted, recorded: Recorded) -> Accepted:
    return Accepted(
        **recorded,
        model=message.model,
        chosen_advisor=message.advisor,
        sampling=sampling_from_wire(message.sampling),
        context_tokens=message.context_tokens,
        queue_position=message.queue_position,
        deadline_time=time_from_wire(message.deadline_time) if message.HasField("deadline_time") else None,
    )


def progress_from_wire(message: analysis_pb2.Progress, recorded: Recorded) -> Progress:
    """Return where the analysis is."""
    has_estimate = message.HasField("estimated_time_left")
    return Progress(
        **recorded,
        stage=_enum(Stage, message.stage),
        message=message.message,
        fraction=message.fraction,
        queue_position=message.queue_position,
        loaded_bytes=message.loaded_bytes,
        model_bytes=message.model_bytes,
        prompt_tokens_done=message.prompt_tokens_done,
        prompt_tokens_total=message.prompt_tokens_total,
        prompt_tokens_cached=message.prompt_tokens_cached,
        output_tokens=message.output_tokens,
        max_output_tokens=message.max_output_tokens,
        output_tokens_per_s=message.output_tokens_per_s,
        prompt_tokens_per_s=message.prompt_tokens_per_s,
        peak_memory_bytes=message.peak_memory_bytes,
        elapsed_s=seconds_from_wire(message.elapsed),
        estimated_time_left_s=seconds_from_wire(message.estimated_time_left) if has_estimate else None,
        continuations=message.continuations,
    )


def _token(message: analysis_pb2.Token, recorded: Recorded) -> Token:
    return Token(
        **recorded,
        text=message.text,
        first_index=message.first_index,
        token_count=message.token_count,
        ids=tuple(message.ids),
        log_probabilities=tuple(message.log_probabilities),
    )


def _completed(message: analysis_pb2.Completed, recorded: Recorded) -> Completed:
    return Completed(
        **recorded,
        text=message.text,
        finish_reason=_enum(FinishReason, message.finish_reason),
        stop_sequence=message.stop_sequence,
        usage=usage_from_wire(message.usage),
        timings=timings_from_wire(message.timings),
    )


def sampling_from_wire(message: analysis_pb2.Sampling) -> Sampling:
    """Return the sampling; fields that are not set are None."""
    return Sampling(
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        min_tokens=message.min_tokens if message.HasField("min_tokens") else None,
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        top_k=message.top_k if message.HasField("top_k") else None,
        min_p=message.min_p if message.HasField("min_p") else None,
        repetition_penalty=message.repetition_penalty if message.HasField("repetition_penalty") else None,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
    )


def usage_from_wire(message: analysis_pb2.Usage) -> Usage:
    """Return the token counts."""
    return Usage(
        prompt_tokens=message.prompt_tokens,
        image_tokens=message.image_tokens,
        cached_tokens=message.cached_tokens,
        output_tokens=message.output_tokens,
    )


def timings_from_wire(message: analysis_pb2.Timings) -> Timings:
    """Return the times in seconds; parts that are not set are None."""
    return Timings(
        queue_s=seconds_from_wire(message.queue) if message.HasField("queue") else None,
        prepare_s=seconds_from_wire(message.prepare) if message.HasField("prepare") else None,
        encode_s=seconds_from_wire(message.encode) if message.HasField("encode") else None,
        prefill_s=seconds_from_wire(message.prefill) if message.HasField("prefill") else None,
        time_to_first_token_s=(
            seconds_from_wire(message.time_to_first_token) if message.HasField("time_to_first_token") else None
        ),
        decode_s=seconds_from_wire(message.decode) if message.HasField("decode") else None,
        total_s=seconds_from_wire(message.total) if message.HasField("total") else None,
        prompt_tokens_per_s=message.prompt_tokens_per_s,
        output_tokens_per_s=message.output_tokens_per_s,
        peak_memory_bytes=message.peak_memory_bytes,
    )


def advisor_from_wire(message: advisor_service_pb2.Advisor) -> Advisor:
    """Return the advisor."""
    return Advisor(
        name=message.name,
        display_name=message.display_name,
        description=message.description,
        instructions=message.instructions,
        sampling=sampling_from_wire(message.sampling),
    )


def model_from_wire(message: model_service_pb2.Model) -> Model:
    """Return the model."""
    return Model(
        name=message.name,
        state=_enum(ModelState, message.state),
        architecture=message.architecture,
        context_tokens=message.context_tokens,
        slots=message.slots,
        slots_in_use=message.slots_in_use,
        queue_length=message.queue_length,
        parameters=message.parameters,
        weights_bytes=message.weights_bytes,
        quantization_bits=message.quantization_bits,
        peak_memory_bytes=message.peak_memory_bytes,
        loaded_bytes=message.loaded_bytes,
        accepts_images=message.accepts_images,
        total_bytes=message.total_bytes,
        downloading=message.downloading,
        active_memory_bytes=message.active_memory_bytes,
        kv_cache_bits=message.kv_cache_bits,
        kv_cache_group_size=message.kv_cache_group_size,
        adapter=message.adapter,
        thinking=message.thinking,
        thinking_budget_tokens=message.thinking_budget_tokens,
        trusts_remote_code=message.trusts_remote_code,
    )


def stage_from_wire(value: int) -> Stage:
    """Return the stage."""
    return _enum(Stage, value)


def state_from_wire(value: int) -> AnalysisState:
    """Return the state."""
    return _enum(AnalysisState, value)


def finish_reason_from_wire(value: int) -> FinishReason:
    """Return the reason."""
    return _enum(FinishReason, value)


def _enum(cls: type[_E], value: int) -> _E:
    try:
        return cls(value)
    except ValueError:  # a newer server may send values that this version does not know; they must not end the stream
        return cls(0)


def time_from_wire(message: timestamp_pb2.Timestamp) -> datetime:
    """Return the time in UTC."""
    return message.ToDatetime(tzinfo=UTC)


def seconds_from_wire(message: duration_pb2.Duration) -> float:
    """Return the duration in seconds."""
    return message.seconds + message.nanos / 1e9
