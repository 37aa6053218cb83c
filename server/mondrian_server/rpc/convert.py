"""Conversion between messages and values: the one place where wire types stop."""

from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from mondrian.v1 import advisor_service_pb2 as advisor_pb2
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import model_service_pb2 as model_pb2
from mondrian.v1.analysis_service_pb2 import AnalyzeRequest
from mondrian_server import events
from mondrian_server.advisors import Advisor
from mondrian_server.analyses.request import AnalysisRequest, Delivery
from mondrian_server.analyses.spec import Spec
from mondrian_server.analyses.view import View
from mondrian_server.engine.interface import EngineState, EngineStatus
from mondrian_server.errors import InvalidRequest
from mondrian_server.rpc.status import to_status
from mondrian_server.sampling import Sampling

_STATES = {
    EngineState.LOADING: model_pb2.MODEL_STATE_LOADING,
    EngineState.READY: model_pb2.MODEL_STATE_READY,
    EngineState.DOWN: model_pb2.MODEL_STATE_UNAVAILABLE,
}


def to_request(config: pb.AnalysisConfig, *, request_id: str, caller: str) -> AnalysisRequest:
    """Return the request; raises InvalidRequest for a malformed duration."""
    delivery = config.delivery
    return AnalysisRequest(
        prompt=config.prompt,
        images=tuple(image.data for image in config.images),
        advisor=config.advisor,
        instructions=config.instructions,
        model=config.model,
        sampling=_to_sampling(config.sampling),
        token_ids=config.token_detail.ids,
        log_probabilities=config.token_detail.log_probabilities,
        delivery=Delivery(
            token_interval_s=to_seconds(delivery, "token_interval", "config.delivery.token_interval"),
            max_tokens=delivery.max_tokens,
            at_sentence_end=delivery.at_sentence_end,
            progress_interval_s=to_seconds(delivery, "progress_interval", "config.delivery.progress_interval"),
        ),
        time_limit_s=to_seconds(config, "time_limit", "config.time_limit"),
        request_id=request_id,
        caller=caller,
    )


def from_event(event: events.Event, *, with_ids: bool) -> pb.Event:
    """Return the message of an event, with the ids of tokens only if they were asked for."""
    message = pb.Event(
        sequence=event.sequence,
        analysis=event.analysis,
        create_time=_timestamp(event.create_time),
        advisor=event.advisor,
    )
    match event.payload:
        case events.Token() as token:
            message.token.CopyFrom(_from_token(token, with_ids=with_ids))
        case events.Progress() as progress:
            message.progress.CopyFrom(_from_progress(progress))
        case events.Accepted() as accepted:
            message.accepted.CopyFrom(_from_accepted(accepted))
        case events.Completed() as completed:
            message.completed.CopyFrom(_from_completed(completed))
        case events.Failed() as failed:
            message.failed.CopyFrom(_from_failed(failed))
        case events.Cancelled() as cancelled:
            message.cancelled.CopyFrom(_from_cancelled(cancelled))
    return message


def from_view(view: View) -> pb.Analysis:
    """Return the message of an analysis."""
    record = view.record
    message = pb.Analysis(
        name=record.name,
        state=pb.AnalysisState.ValueType(record.state),
        request_id=record.request_id,
        create_time=_timestamp_s(record.create_time_s),
        end_time=None if record.end_time_s is None else _timestamp_s(record.end_time_s),
        text=view.text,
        expired=record.expired,
    )
    if view.spec is not None:
        message.config.CopyFrom(_from_spec(view.spec))
        message.image_count = view.spec.image_count
    if view.progress is not None:
        message.progress.CopyFrom(_from_progress(view.progress))
    match record.terminal:
        case events.Completed() as completed:
            message.completed.CopyFrom(_from_completed(completed))
            message.completed.ClearField("text")  # It stands in the analysis.
        case events.Failed() as failed:
            message.failed.CopyFrom(_from_failed(failed))
        case events.Cancelled() as cancelled:
            message.cancelled.CopyFrom(_from_cancelled(cancelled))
        case None:
            pass
    return message


def _from_spec(spec: Spec) -> pb.AnalysisConfig:
    request, resolved = spec.request, spec.resolved
    return pb.AnalysisConfig(
        prompt=request.prompt,
        advisor=resolved.advisor,
        instructions=request.instructions,
        model=resolved.model,
        sampling=from_sampling(resolved.sampling),
        token_detail=pb.TokenDetail(ids=request.token_ids, log_probabilities=request.log_probabilities),
        delivery=pb.Delivery(
            token_interval=_duration(resolved.policy.interval_s),
            max_tokens=resolved.policy.max_tokens,
            at_sentence_end=resolved.policy.at_sentence_end,
            progress_interval=_duration(resolved.progress_interval_s),
        ),
        time_limit=_duration(request.time_limit_s),
    )


def from_sampling(sampling: Sampling) -> pb.Sampling:
    """Return the message, unset fields left unset."""
    return pb.Sampling(
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        stop=sampling.stop,
    )


def from_advisor(advisor: Advisor) -> advisor_pb2.Advisor:
    """Return the message of an advisor."""
    return advisor_pb2.Advisor(
        name=f"advisors/{advisor.id}",
        display_name=advisor.display_name,
        description=advisor.description,
        instructions=advisor.instructions,
        sampling=from_sampling(advisor.sampling),
    )


def from_model(name: str, status: EngineStatus, *, queue_length: int) -> model_pb2.Model:
    """Return the message of the model that the engine runs."""
    message = model_pb2.Model(
        name=name,
        state=_STATES[status.state],
        slots_in_use=status.slots_in_use,
        queue_length=queue_length,
        peak_memory_bytes=status.peak_memory_bytes,
        active_memory_bytes=status.active_memory_bytes,
    )
    if (loading := status.loading) is not None:
        message.loaded_bytes, message.total_bytes = loading.done_bytes, loading.total_bytes
        message.downloading = loading.downloading
    if status.model is not None:
        message.architecture = status.model.architecture
        message.context_tokens = status.model.context_tokens
        message.slots = status.model.slots
        message.parameters = status.model.parameters
        message.weights_bytes = status.model.weights_bytes
        message.quantization_bits = status.model.quantization_bits
        message.accepts_images = status.model.accepts_images
        message.kv_cache_bits = status.model.kv_cache_bits
        message.kv_cache_group_size = status.model.kv_cache_group_size
        message.adapter = status.model.adapter
        message.thinking = status.model.thinking
        message.thinking_budget_tokens = status.model.thinking_budget_tokens
        message.trusts_remote_code = status.model.trusts_remote_code
    return message


def _to_sampling(message: pb.Sampling) -> Sampling:
    def given(name: str) -> bool:
        return message.HasField(name)  # type: ignore[arg-type]  # each name below is an optional field

    return Sampling(
        max_tokens=message.max_tokens if given("max_tokens") else None,
        min_tokens=message.min_tokens if given("min_tokens") else None,
        temperature=message.temperature if given("temperature") else None,
        top_p=message.top_p if given("top_p") else None,
        top_k=message.top_k if given("top_k") else None,
        min_p=message.min_p if given("min_p") else None,
        repetition_penalty=message.repetition_penalty if given("repetition_penalty") else None,
        seed=message.seed if given("seed") else None,
        stop=tuple(message.stop),
    )


def _from_token(token: events.Token, *, with_ids: bool) -> pb.Token:
    return pb.Token(
        text=token.text,
        first_index=token.first_index,
        token_count=token.token_count,
        ids=token.ids if with_ids else (),
        log_probabilities=token.log_probabilities,
    )


def _from_progress(progress: events.Progress) -> pb.Progress:
    return pb.Progress(
        stage=pb.Stage.ValueType(progress.stage),
        message=progress.message,
        fraction=progress.fraction,
        queue_position=progress.queue_position,
        loaded_bytes=progress.loaded_bytes,
        model_bytes=progress.model_bytes,
        prompt_tokens_done=progress.prompt_tokens_done,
        prompt_tokens_total=progress.prompt_tokens_total,
        prompt_tokens_cached=progress.prompt_tokens_cached,
        output_tokens=progress.output_tokens,
        max_output_tokens=progress.max_output_tokens,
        output_tokens_per_s=progress.output_tokens_per_s,
        prompt_tokens_per_s=progress.prompt_tokens_per_s,
        peak_memory_bytes=progress.peak_memory_bytes,
        elapsed=_duration(progress.elapsed_s),
        estimated_time_left=_duration(progress.estimated_time_left_s),
        continuations=progress.continuations,
    )


def _from_accepted(accepted: events.Accepted) -> pb.Accepted:
    return pb.Accepted(
        model=accepted.model,
        advisor=accepted.advisor,
        sampling=from_sampling(accepted.sampling),
        context_tokens=accepted.context_tokens,
        queue_position=accepted.queue_position,
        deadline_time=None if accepted.deadline_time is None else _timestamp(accepted.deadline_time),
    )


def _from_completed(completed: events.Completed) -> pb.Completed:
    return pb.Completed(
        text=completed.text,
        finish_reason=pb.FinishReason.ValueType(completed.finish_reason),
        stop_sequence=completed.stop_sequence,
        usage=_from_usage(completed.usage),
        timings=_from_timings(completed.timings),
    )


def _from_failed(failed: events.Failed) -> pb.Failed:
    return pb.Failed(
        error=to_status(failed.error), usage=_from_usage(failed.usage), timings=_from_timings(failed.timings)
    )


def _from_cancelled(cancelled: events.Cancelled) -> pb.Cancelled:
    return pb.Cancelled(
        stage=pb.Stage.ValueType(cancelled.stage),
        usage=_from_usage(cancelled.usage),
        timings=_from_timings(cancelled.timings),
    )


def _from_usage(usage: events.Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        image_tokens=usage.image_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
    )


def _from_timings(timings: events.Timings) -> pb.Timings:
    return pb.Timings(
        queue=_duration(timings.queue_s),
        prepare=_duration(timings.prepare_s),
        encode=_duration(timings.encode_s),
        prefill=_duration(timings.prefill_s),
        time_to_first_token=_duration(timings.time_to_first_token_s),
        decode=_duration(timings.decode_s),
        total=_duration(timings.total_s),
        prompt_tokens_per_s=timings.prompt_tokens_per_s,
        output_tokens_per_s=timings.output_tokens_per_s,
        peak_memory_bytes=timings.peak_memory_bytes,
    )


def to_seconds(message: AnalyzeRequest | pb.AnalysisConfig | pb.Delivery, name: str, path: str) -> float | None:
    """Return a duration field in seconds, None where it is unset; raises InvalidRequest if it is malformed."""
    if not message.HasField(name):  # type: ignore[arg-type]  # each caller names a message field
        return None
    value: Duration = getattr(message, name)
    if abs(value.nanos) >= 1_000_000_000 or value.seconds * value.nanos < 0 or abs(value.seconds) > 315_576_000_000:
        raise InvalidRequest("not a valid duration", field=path)
    return value.seconds + value.nanos / 1e9


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _timestamp_s(moment_s: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(moment_s * 1e9))
    return stamp


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
