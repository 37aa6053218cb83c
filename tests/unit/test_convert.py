"""Conversion: every field of every event and request arrives, and none is left out by accident."""

import dataclasses
import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server import events
from mondrian_server.advisors import Advisor
from mondrian_server.analyses.request import AnalysisRequest, Delivery
from mondrian_server.analyses.resolution import Defaults, Resolved, resolve
from mondrian_server.analyses.spec import Spec, decode_spec, encode_spec
from mondrian_server.analyses.view import View
from mondrian_server.engine.interface import EngineState, EngineStatus
from mondrian_server.engine.protocol import Loading
from mondrian_server.errors import EngineUnavailable, InvalidRequest
from mondrian_server.log.interface import Record, State
from mondrian_server.rpc.convert import (
    from_advisor,
    from_event,
    from_model,
    from_sampling,
    from_view,
    to_request,
    to_seconds,
)
from mondrian_server.sampling import Sampling
from tests.unit.stand_ins import ADVISORS, ANSEL, MODEL

NOW = datetime(2026, 11, 20, 12, 30, 45, 123456, tzinfo=UTC)
SAMPLING = Sampling(
    max_tokens=11,
    min_tokens=10,
    temperature=0.5,
    top_p=0.25,
    top_k=13,
    min_p=0.125,
    repetition_penalty=1.5,
    seed=2**32 - 1,
    stop=("one", "two"),
)
USAGE = events.Usage(prompt_tokens=21, image_tokens=22, cached_tokens=23, output_tokens=24)
TIMINGS = events.Timings(
    queue_s=1.5,
    prepare_s=2.5,
    encode_s=3.5,
    prefill_s=4.5,
    time_to_first_token_s=5.5,
    decode_s=6.5,
    total_s=7.5,
    prompt_tokens_per_s=8.5,
    output_tokens_per_s=9.5,
    peak_memory_bytes=2**40,
)
ACCEPTED = events.Accepted(
    model="models/m",
    advisor="advisors/a",
    sampling=SAMPLING,
    context_tokens=31,
    queue_position=32,
    deadline_time=NOW,
)
PAYLOADS: dict[str, events.Payload] = {
    "accepted": ACCEPTED,
    "progress": events.Progress(
        stage=events.Stage.PREFILL,
        message="Reading...",
        fraction=0.75,
        queue_position=41,
        loaded_bytes=2**41,
        model_bytes=2**42,
        prompt_tokens_done=42,
        prompt_tokens_total=43,
        prompt_tokens_cached=44,
        output_tokens=45,
        max_output_tokens=46,
        output_tokens_per_s=47.5,
        prompt_tokens_per_s=48.5,
        peak_memory_bytes=2**43,
        elapsed_s=49.5,
        estimated_time_left_s=50.25,
        continuations=50,
    ),
    "token": events.Token(
        text="héllo 💭", first_index=51, token_count=52, ids=(53, 54), log_probabilities=(-0.5, -math.inf)
    ),
    "completed": events.Completed(
        text="all", finish_reason=events.FinishReason.STOP_SEQUENCE, stop_sequence="END", usage=USAGE, timings=TIMINGS
    ),
    "failed": events.Failed(error=EngineUnavailable("gone", retry_after_s=1.0), usage=USAGE, timings=TIMINGS),
    "cancelled": events.Cancelled(stage=events.Stage.ENCODING, usage=USAGE, timings=TIMINGS),
}


def unset(message: Message) -> set[str]:
    """Return the names of the fields that are empty, but for the payloads that an event does not have."""
    given = {field.name for field, _ in message.ListFields()}
    return {f.name for f in message.DESCRIPTOR.fields if not _is_payload(f)} - given


def _is_payload(field: Any) -> bool:
    return field.containing_oneof is not None and field.containing_oneof.name == "payload"


def plain(value: Any) -> Any:
    """Return a field's value in the terms of the domain: seconds, moments, tuples, numbers."""
    match value:
        case Duration():
            return value.ToNanoseconds() / 1e9
        case Timestamp():
            return value.ToDatetime(UTC)
        case Message():
            return {field.name: plain(getattr(value, field.name)) for field in value.DESCRIPTOR.fields}
        case str() | bytes() | bool() | int() | float():
            return value
        case _:
            return tuple(plain(item) for item in value)


KEPT_BACK = {"crashes"}
"""Fields that are for the server's next start alone."""


def expected(value: object) -> Any:
    """Return a domain value as `plain` gives its message: a span in seconds loses its suffix."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {_wire_name(name): expected(getattr(value, name)) for name in names}
    if isinstance(value, msgspec.Struct):
        return {_wire_name(f): expected(getattr(value, f)) for f in value.__struct_fields__ if f not in KEPT_BACK}
    return value


def _wire_name(name: str) -> str:
    return name if name.endswith("_per_s") else name.removesuffix("_s")


def event(payload: events.Payload) -> events.Event:
    """Return an event with every field set."""
    return events.Event(sequence=7, analysis="analyses/x", create_time=NOW, payload=payload, advisor="advisors/v")


def test_there_is_a_sample_of_every_payload() -> None:
    """A payload that is added to the contract needs a sample here."""
    wire = {field.name for field in pb.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert set(PAYLOADS) == wire
    assert {type(payload).__name__.lower() for payload in PAYLOADS.values()} == wire


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_field_is_left_unset_by_accident(name: str) -> None:
    """With every value given, each field of the event, its payload and their parts is set on the wire."""
    message = from_event(event(PAYLOADS[name]), with_ids=True)
    assert message.WhichOneof("payload") == name
    assert unset(message) == set()
    payload: Message = getattr(message, name)
    assert unset(payload) == set()
    for field, value in payload.ListFields():
        if field.message_type is not None and field.message_type.file.package == "mondrian.v1":
            assert unset(value) == set(), field.name


@pytest.mark.parametrize("name", [name for name in PAYLOADS if name != "failed"])
def test_every_value_arrives(name: str) -> None:
    """Each field has the value of the domain's field of its name."""
    message = from_event(event(PAYLOADS[name]), with_ids=True)
    assert plain(getattr(message, name)) == expected(PAYLOADS[name])


def test_the_envelope_arrives() -> None:
    """Sequence, analysis, time and advisor."""
    message = from_event(event(PAYLOADS["token"]), with_ids=True)
    assert (message.sequence, message.analysis, message.advisor) == (7, "analyses/x", "advisors/v")
    assert message.create_time.ToDatetime(UTC) == NOW


def test_a_failure_arrives_with_its_status() -> None:
    """The error is the status that the call ends with, beside usage and timings."""
    failed = from_event(event(PAYLOADS["failed"]), with_ids=False).failed
    assert (failed.error.code, failed.error.message, len(failed.error.details)) == (14, "gone", 2)
    assert plain(failed.usage) == expected(USAGE)
    assert plain(failed.timings) == expected(TIMINGS)


def test_what_is_not_known_is_unset() -> None:
    """No deadline, no estimate and no span are absent, not zero."""
    accepted = msgspec.structs.replace(ACCEPTED, deadline_time=None)
    assert not from_event(event(accepted), with_ids=False).accepted.HasField("deadline_time")
    progress = events.Progress(stage=events.Stage.QUEUED, message="", fraction=0.0)
    assert not from_event(event(progress), with_ids=False).progress.HasField("estimated_time_left")
    cancelled = events.Cancelled(stage=events.Stage.QUEUED)
    assert from_event(event(cancelled), with_ids=False).cancelled.timings.ListFields() == []


def test_ids_are_told_only_to_those_who_asked() -> None:
    """The log has the ids of all tokens; on the wire they are left out, and nothing else is."""
    token = from_event(event(PAYLOADS["token"]), with_ids=False).token
    whole = from_event(event(PAYLOADS["token"]), with_ids=True).token
    assert list(token.ids) == []
    assert list(whole.ids) == [53, 54]
    whole.ClearField("ids")
    assert token == whole


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.1, 0.999999999, 1.0, 59.9999999999, 86400.5])
def test_spans_are_valid_durations(seconds: float) -> None:
    """Nanoseconds stay below a second, and nothing is lost but less than a microsecond."""
    progress = events.Progress(stage=events.Stage.QUEUED, message="", fraction=0.0, elapsed_s=seconds)
    elapsed = from_event(event(progress), with_ids=False).progress.elapsed
    assert 0 <= elapsed.nanos < 1_000_000_000
    assert elapsed.ToNanoseconds() / 1e9 == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("domain", "wire", "prefix"),
    [
        (events.Stage, pb.Stage, "STAGE_"),
        (events.FinishReason, pb.FinishReason, "FINISH_REASON_"),
        (State, pb.AnalysisState, "ANALYSIS_STATE_"),
    ],
)
def test_enumerations_agree_by_name_and_number(domain: Any, wire: Any, prefix: str) -> None:
    """Each value of the domain is one of the contract's, and the other way round."""
    ours = {prefix + member.name: member.value for member in domain}
    assert ours | {prefix + "UNSPECIFIED": 0} == dict(wire.items())


def test_unset_sampling_stays_unset() -> None:
    """None is absent on the wire, and zero is not."""
    assert from_sampling(Sampling()).ListFields() == []
    zero = from_sampling(Sampling(temperature=0.0, top_k=0, min_tokens=0, min_p=0.0, seed=0))
    assert all(zero.HasField(name) for name in ("temperature", "top_k", "min_tokens", "min_p", "seed"))


def full_config() -> pb.AnalysisConfig:
    """Return a configuration with every field set."""
    config = pb.AnalysisConfig(
        prompt="p",
        images=[pb.Image(data=b"one"), pb.Image(data=b"two")],
        advisor="ansel",
        instructions="i",
        model="m",
        sampling=from_sampling(SAMPLING),
        token_detail=pb.TokenDetail(ids=True, log_probabilities=True),
        delivery=pb.Delivery(max_tokens=61, at_sentence_end=True),
    )
    config.delivery.token_interval.FromMilliseconds(250)
    config.delivery.progress_interval.FromMilliseconds(1500)
    config.time_limit.FromMilliseconds(90_500)
    return config


def test_every_field_of_a_request_is_read() -> None:
    """With every field of the contract set, every value of the request is one that was sent."""
    config = full_config()
    for message in (config, config.sampling, config.token_detail, config.delivery):
        assert unset(message) == set(), "the sample is complete"
    request = to_request(config, request_id="r", caller="c")
    assert request == AnalysisRequest(
        prompt="p",
        images=(b"one", b"two"),
        advisor="ansel",
        instructions="i",
        model="m",
        sampling=SAMPLING,
        token_ids=True,
        log_probabilities=True,
        delivery=Delivery(token_interval_s=0.25, max_tokens=61, at_sentence_end=True, progress_interval_s=1.5),
        time_limit_s=90.5,
        request_id="r",
        caller="c",
    )
    bare = AnalysisRequest()
    same = [f.name for f in dataclasses.fields(request) if getattr(request, f.name) == getattr(bare, f.name)]
    assert same == [], "no field of the request is left at its default"


def test_an_empty_configuration_is_an_empty_request() -> None:
    """Nothing that was not sent is made up; unset differs from zero."""
    assert to_request(pb.AnalysisConfig(), request_id="", caller="local") == AnalysisRequest()
    zero = pb.AnalysisConfig(sampling=pb.Sampling(temperature=0.0, max_tokens=0, seed=0), time_limit=Duration())
    zero.delivery.token_interval.FromSeconds(0)
    request = to_request(zero, request_id="", caller="local")
    assert (request.sampling.temperature, request.sampling.max_tokens, request.sampling.seed) == (0.0, 0, 0)
    assert (request.delivery.token_interval_s, request.time_limit_s) == (0.0, 0.0)
    assert request.delivery.progress_interval_s is None


@pytest.mark.parametrize(
    "malformed",
    [
        Duration(nanos=1_000_000_000),
        Duration(nanos=-1_000_000_000),
        Duration(seconds=1, nanos=-1),
        Duration(seconds=-1, nanos=1),
        Duration(seconds=315_576_000_001),
        Duration(seconds=-(2**63)),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["delivery.token_interval", "delivery.progress_interval", "time_limit"])
def test_a_malformed_duration_is_refused_by_its_field(path: str, malformed: Duration) -> None:
    """What `google.protobuf.Duration` forbids is an INVALID_ARGUMENT."""
    config = pb.AnalysisConfig(prompt="?")
    parent: Any = config.delivery if "." in path else config
    getattr(parent, path.rpartition(".")[2]).CopyFrom(malformed)
    with pytest.raises(InvalidRequest) as caught:
        to_request(config, request_id="", caller="local")
    assert caught.value.field == f"config.{path}"


@pytest.mark.parametrize("malformed", [Duration(nanos=1_000_000_000), Duration(seconds=1, nanos=-1)], ids=str)
def test_a_malformed_grace_is_refused_by_its_field(malformed: Duration) -> None:
    """The same holds for the durations of a request beside its configuration."""
    with pytest.raises(InvalidRequest) as caught:
        to_seconds(service_pb.AnalyzeRequest(disconnect_grace=malformed), "disconnect_grace", "disconnect_grace")
    assert caught.value.field == "disconnect_grace"


# Analyses as resources.


def full_spec() -> Spec:
    """Return a spec with every field set."""
    config = full_config()
    config.ClearField("instructions")
    request = to_request(config, request_id="r", caller="c")
    defaults = Defaults(model="m", max_tokens=61)
    return Spec(
        request=dataclasses.replace(request, images=()),
        resolved=resolve(request, defaults, ADVISORS),
        image_count=2,
        image_bytes=3,
        deadline_time_s=1e9,
        disconnect_grace_s=30.0,
    )


def record_of(state: State, *, terminal: events.Terminal | None = None, expired: bool = False) -> Record:
    """Return a record with every field set."""
    return Record(
        name="analyses/x",
        caller="c",
        request_id="r",
        digest=b"d",
        create_time_s=NOW.timestamp(),
        spec=b"",
        state=state,
        end_time_s=None if terminal is None else NOW.timestamp() + 2,
        terminal=terminal,
        text="the end",
        expired=expired,
        number=7,
    )


def terminal_of(name: str) -> events.Terminal:
    """Return a sample of a terminal payload."""
    payload = PAYLOADS[name]
    assert isinstance(payload, events.Terminal)
    return payload


def test_an_active_analysis_arrives_whole() -> None:
    """What is missing is what it does not have yet: an end, a result and an expiry."""
    progress = PAYLOADS["progress"]
    assert isinstance(progress, events.Progress)
    view = View(record=record_of(State.ACTIVE), spec=full_spec(), text="so far", progress=progress)
    message = from_view(view)
    assert unset(message) == {"end_time", "expired", "completed", "failed", "cancelled"}
    assert (message.name, message.state, message.request_id) == ("analyses/x", pb.ANALYSIS_STATE_ACTIVE, "r")
    assert (message.text, message.image_count) == ("so far", 2)
    assert message.create_time.ToDatetime(UTC) == NOW
    assert plain(message.progress) == expected(progress)


def test_a_config_is_what_was_asked_for_with_the_sampling_in_force() -> None:
    """Every field is set but the bytes of the images, and the values are those that apply."""
    message = from_view(View(record=record_of(State.ACTIVE), spec=full_spec(), text="")).config
    assert unset(message) == {"images", "instructions"}
    assert (message.prompt, message.advisor, message.model) == ("p", "advisors/ansel", "models/m")
    assert plain(message.sampling) == expected(SAMPLING)
    assert (message.delivery.token_interval.ToMilliseconds(), message.delivery.max_tokens) == (250, 61)
    assert message.delivery.at_sentence_end
    assert message.delivery.progress_interval.ToMilliseconds() == 1500
    assert message.time_limit.ToMilliseconds() == 90_500
    assert (message.token_detail.ids, message.token_detail.log_probabilities) == (True, True)
    for part in (message.sampling, message.delivery, message.token_detail):
        assert unset(part) == set()


def test_a_config_shows_the_callers_instructions_and_not_an_advisors() -> None:
    """An advisor's own instructions stand in the catalogue; max_tokens that was left open stays open."""
    own = AnalysisRequest(prompt="p", instructions="Be brief.")
    advised = AnalysisRequest(prompt="p", advisor="ansel")
    for request, instructions, max_tokens in ((own, "Be brief.", None), (advised, "", ANSEL.sampling.max_tokens)):
        spec = Spec(request=request, resolved=resolve(request, Defaults(model="m"), ADVISORS), image_count=0)
        config = from_view(View(record=record_of(State.ACTIVE), spec=spec, text="")).config
        assert config.instructions == instructions
        assert (config.sampling.max_tokens if config.sampling.HasField("max_tokens") else None) == max_tokens
        assert config.sampling.HasField("seed"), "a seed that was drawn is told"
        assert not config.HasField("time_limit")


@pytest.mark.parametrize(
    ("name", "state"), [("completed", State.COMPLETED), ("failed", State.FAILED), ("cancelled", State.CANCELLED)]
)
def test_an_ended_analysis_arrives_with_its_result(name: str, state: State) -> None:
    """The result is the terminal event's; the text of a completed one stands once, in the analysis."""
    terminal = terminal_of(name)
    message = from_view(View(record=record_of(state, terminal=terminal), spec=full_spec(), text="the end"))
    assert message.state == state
    assert message.WhichOneof("result") == name
    assert unset(message) == {"progress", "expired"} | {"completed", "failed", "cancelled"} - {name}
    assert message.end_time.ToDatetime(UTC).timestamp() == pytest.approx(NOW.timestamp() + 2)
    assert message.text == "the end"
    result: Message = getattr(message, name)
    told: Message = getattr(from_event(event(terminal), with_ids=False), name)
    if name == "completed":
        assert message.completed.text == ""
        told.ClearField("text")
    assert result == told


def test_an_expired_analysis_has_only_its_record() -> None:
    """Config and text are gone, and it says so."""
    record = record_of(State.COMPLETED, terminal=terminal_of("completed"), expired=True)
    message = from_view(View(record=record, spec=None, text=""))
    assert message.expired
    assert not message.HasField("config")
    assert (message.text, message.image_count) == ("", 0)
    assert message.WhichOneof("result") == "completed"


def test_a_spec_survives_the_log() -> None:
    """Every field of spec, request and resolved values is read as it was written; none is left at its default."""
    spec = full_spec()
    assert decode_spec(encode_spec(spec)) == spec
    assert set(Spec.__struct_fields__) == {
        "request",
        "resolved",
        "image_count",
        "image_bytes",
        "deadline_time_s",
        "disconnect_grace_s",
    }
    assert all(getattr(spec.resolved, field.name) not in (None, "", 0) for field in dataclasses.fields(Resolved))


def test_what_is_no_spec_is_refused() -> None:
    """Bytes that are not a spec raise, and give no half of one."""
    for data in (b"", b"nonsense", encode_spec(full_spec())[:-1]):
        with pytest.raises(msgspec.MsgspecError):
            decode_spec(data)


def test_an_advisor_arrives_whole() -> None:
    """Every field is set, and the name is a resource name."""
    message = from_advisor(
        Advisor(id="a", display_name="A", description="d", instructions="i", sampling=Sampling(top_k=3))
    )
    assert unset(message) == set()
    assert (message.name, message.display_name, message.description) == ("advisors/a", "A", "d")
    assert (message.instructions, message.sampling.top_k) == ("i", 3)
    assert not message.sampling.HasField("temperature")


def test_a_model_arrives_whole() -> None:
    """Every field is set while a known model is loaded again."""
    status = EngineStatus(
        state=EngineState.READY,
        model=MODEL,
        loading=Loading(message="x", done_bytes=71, total_bytes=72, downloading=True),
        slots_in_use=73,
        peak_memory_bytes=74,
        active_memory_bytes=76,
    )
    message = from_model("models/m", status, queue_length=75)
    assert unset(message) == set()
    assert (message.name, message.loaded_bytes, message.slots_in_use) == ("models/m", 71, 73)
    assert (message.peak_memory_bytes, message.active_memory_bytes, message.queue_length) == (74, 76, 75)
    assert (message.total_bytes, message.downloading) == (72, True)
    for field in MODEL.__struct_fields__:
        assert getattr(message, field) == getattr(MODEL, field)


@pytest.mark.parametrize("state", EngineState)
def test_a_model_has_a_state_before_it_is_known(state: EngineState) -> None:
    """Numbers are 0 until the model was loaded once; the state is told all the while."""
    message = from_model("models/m", EngineStatus(state=state), queue_length=0)
    assert message.state != 0
    assert (message.context_tokens, message.slots) == (0, 0)
