"""Errors: each thing that can go wrong raises its own class, and nothing of gRPC leaks out."""

import copy
import pickle
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest
from google.rpc.status_pb2 import Status

import mondrian
from mondrian import _errors as client_errors
from mondrian.v1 import analysis_pb2 as pb
from mondrian_server import errors as server_errors
from tests.client.conftest import Caller
from tests.client.scripted_server import ANALYSIS, Context, Script, ScriptedServer, Tape, abort, playing, rich_status

_PROTO = Path(__file__).parents[2] / "protos/mondrian/v1/analysis_service.proto"
_CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


def _tree(cls: type, prefix: str = "") -> list[str]:
    children = cls.__subclasses__()
    lines: list[str] = []
    for child in children:
        last = child is children[-1]
        lines.append(f"{prefix}{'└── ' if last else '├── '}{child.__name__}")
        lines += _tree(child, prefix + ("    " if last else "│   "))
    return lines


def _classes(cls: type[Exception]) -> list[type[Exception]]:
    return [cls] + [deeper for child in cls.__subclasses__() for deeper in _classes(child)]


def _proto_table() -> list[tuple[str, str]]:
    return re.findall(r"^//     ([A-Z_]+) +([A-Z_]+)  +\S", _PROTO.read_text(), re.MULTILINE)


def test_the_drawn_tree_is_the_tree() -> None:
    """The picture at the top of the module shows every class in its place."""
    drawing = (client_errors.__doc__ or "").split("\n\n")[1]
    drawn = re.findall(r"^[│├└─ ]*\w+", drawing, re.MULTILINE)
    assert drawn == ["MondrianError", *_tree(mondrian.MondrianError)]


def test_every_error_class_is_public() -> None:
    """No class of the tree is hidden from callers."""
    names = {cls.__name__ for cls in _classes(mondrian.MondrianError)}
    assert names <= set(mondrian.__all__)


def test_every_reason_of_the_contract_has_a_class_of_its_own() -> None:
    """Each row of the table in the proto leads to a class with that reason and code."""
    rows = _proto_table()
    assert len(rows) >= 12
    for code, reason in rows:
        cls = client_errors.error_class(code, reason)
        assert (cls.code, cls.reason) == (code, reason)


def test_every_error_of_the_server_has_a_class_of_its_own() -> None:
    """Each class in the server's tree has a counterpart with its reason and code."""
    classes = [cls for cls in _classes(server_errors.MondrianError) if issubclass(cls, server_errors.MondrianError)]
    assert len(classes) > 10
    for cls in classes:
        found = client_errors.error_class(cls.code.name, cls.reason)
        assert (found.code, found.reason) == (cls.code.name, cls.reason)


async def test_a_rich_error_keeps_all_that_the_server_told(server: ScriptedServer, caller: Caller) -> None:
    """Reason, code, message, fields and delay of a refusal reach the caller."""
    status = rich_status(
        grpc.StatusCode.INVALID_ARGUMENT,
        "not an image — 不是圖片",
        reason="INVALID_IMAGE",
        field="config.images[0].data",
        retry_after_s=1.5,
    )
    server.script = _aborting(status)
    error = (await caller.collect(resume_limit_s=None)).error
    assert type(error) is mondrian.InvalidImage
    assert (str(error), error.reason, error.code) == ("not an image — 不是圖片", "INVALID_IMAGE", "INVALID_ARGUMENT")
    assert error.field_violations == (
        mondrian.FieldViolation(field="config.images[0].data", description="not an image — 不是圖片"),
    )
    assert error.retry_after_s == 1.5
    assert error.analysis == ""


@pytest.mark.parametrize("code", _CODES, ids=lambda code: code.name)
async def test_every_plain_status_is_one_of_our_errors(
    server: ScriptedServer, caller: Caller, code: grpc.StatusCode
) -> None:
    """A status without details raises the class of its code, with no gRPC error behind it."""

    async def script(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        await context.abort(code, "plain")
        yield Tape().unknown()

    server.script = script
    error = (await caller.collect(resume_limit_s=None)).error
    assert isinstance(error, mondrian.MondrianError)
    assert error.code == code.name
    assert type(error).codes == () or code.name in _codes_of(type(error))
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert "plain" in str(error) or isinstance(error, mondrian.AnalysisCancelled)


def _codes_of(cls: type[mondrian.MondrianError]) -> set[str]:
    return {code for base in cls.__mro__ for code in getattr(base, "codes", ())}


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        ("UNAVAILABLE", "ENGINE_ON_FIRE", mondrian.Unavailable),
        ("RESOURCE_EXHAUSTED", "TOO_MANY_COLOURS", mondrian.ResourceExhausted),
        ("INTERNAL", "", mondrian.InternalError),
        ("FAILED_PRECONDITION", "TOO_YOUNG", mondrian.FailedPrecondition),
        ("ABORTED", "", mondrian.MondrianError),
        ("NOT_FOUND", "ENGINE_UNAVAILABLE", mondrian.NotFound),
    ],
    ids=["unavailable", "exhausted", "no reason", "precondition", "no class", "reason of another code"],
)
def test_an_unknown_reason_falls_back_on_its_code(
    code: str, reason: str, expected: type[mondrian.MondrianError]
) -> None:
    """A newer server's reason raises the class of its code, and stays readable."""
    assert client_errors.error_class(code, reason) is expected


async def test_an_unknown_reason_is_kept(server: ScriptedServer, caller: Caller) -> None:
    """The reason that the class does not know is on the error."""
    server.script = _aborting(rich_status(grpc.StatusCode.UNAVAILABLE, "hot", reason="ENGINE_ON_FIRE"))
    error = (await caller.collect(resume_limit_s=None)).error
    assert type(error) is mondrian.Unavailable
    assert error.reason == "ENGINE_ON_FIRE"


async def test_a_reason_of_a_foreign_domain_is_not_ours(server: ScriptedServer, caller: Caller) -> None:
    """Another service's ErrorInfo does not choose our class."""
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "proxy", reason="ENGINE_UNAVAILABLE", domain="envoy")
    server.script = _aborting(status)
    error = (await caller.collect(resume_limit_s=None)).error
    assert type(error) is mondrian.Unavailable
    assert error.reason == ""


async def test_malformed_details_leave_the_plain_status(server: ScriptedServer, caller: Caller) -> None:
    """Rubbish in the details is ignored; code and message count."""

    async def script(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"),))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
        yield Tape().unknown()

    server.script = script
    error = (await caller.collect(resume_limit_s=None)).error
    assert type(error) is mondrian.ResourceExhausted
    assert str(error) == "too large"


async def test_a_failure_mid_stream_raises_after_what_came_before(server: ScriptedServer, caller: Caller) -> None:
    """`failed` ends the loop by its typed error, with the analysis, its usage and the text so far."""
    tape = Tape()
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "the engine died", reason="ENGINE_UNAVAILABLE", retry_after_s=2)
    sent = [tape.accepted(), tape.token("The"), tape.token(" picture")]
    failed = tape.failed(status)
    failed.failed.usage.output_tokens = 2
    failed.failed.timings.total.FromMilliseconds(1500)

    async def script(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        for event in (*sent, failed):
            yield event
        await abort(context, status)

    server.script = script
    outcome = await caller.collect(resume_limit_s=None)
    assert [event.sequence for event in outcome.events] == [1, 2, 3]
    assert outcome.text == "The picture"
    error = outcome.error
    assert type(error) is mondrian.EngineUnavailable
    assert error.retry_after_s == 2
    assert error.analysis == ANALYSIS
    assert error.usage is not None
    assert error.usage.output_tokens == 2
    assert error.timings is not None
    assert error.timings.total_s == 1.5


async def test_somebody_elses_cancel_raises(server: ScriptedServer, caller: Caller) -> None:
    """`cancelled` ends the loop by AnalysisCancelled, so that no loop mistakes it for an answer."""
    tape = Tape()
    server.script = playing(tape.accepted(), tape.token("Th"), tape.cancelled(stage=6))
    outcome = await caller.collect(resume_limit_s=None)
    assert [type(event) for event in outcome.events] == [mondrian.Accepted, mondrian.Token]
    assert isinstance(outcome.error, mondrian.AnalysisCancelled)
    assert outcome.error.stage is mondrian.Stage.GENERATING


async def test_a_stream_that_just_ends_is_an_error(server: ScriptedServer, caller: Caller) -> None:
    """OK without a terminal event is not taken for an answer."""
    server.script = playing(Tape().accepted())
    error = (await caller.collect(resume_limit_s=None)).error
    assert type(error) is mondrian.InternalError
    assert error.analysis == ANALYSIS


def test_errors_survive_copying_and_pickling() -> None:
    """An error that crosses processes keeps its class and its fields."""
    error = mondrian.TooManyAnalyses("full", retry_after_s=3.0, analysis=ANALYSIS)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own bytes
        assert type(twin) is mondrian.TooManyAnalyses
        assert (str(twin), twin.retry_after_s, twin.analysis) == ("full", 3.0, ANALYSIS)


def _aborting(status: Status) -> Script:
    async def script(_request: object, context: Context) -> AsyncGenerator[pb.Event]:
        await abort(context, status)
        yield Tape().unknown()

    return script
