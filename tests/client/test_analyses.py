"""Analyses as resources: create, get, list, cancel and delete, in both clients."""

import asyncio
import time
from datetime import UTC, datetime

import grpc
import pytest
from google.rpc.status_pb2 import Status

import mondrian
from mondrian.v1 import analysis_pb2 as pb
from tests.client.conftest import Caller
from tests.client.scripted_server import ANALYSIS, ScriptedServer, rich_status

State = mondrian.AnalysisState


def _complete(name: str = ANALYSIS) -> pb.Analysis:
    analysis = pb.Analysis(name=name, state=pb.ANALYSIS_STATE_COMPLETED, text="A cat.", request_id="r1", image_count=2)
    analysis.create_time.FromSeconds(1_800_000_000)
    analysis.end_time.FromSeconds(1_800_000_005)
    analysis.config.CopyFrom(
        pb.AnalysisConfig(
            prompt="What?",
            advisor="advisors/ansel",
            instructions="",
            model="models/mondrian-tiny",
            sampling=pb.Sampling(seed=7, max_tokens=512),
        )
    )
    analysis.config.time_limit.FromMilliseconds(1500)
    completed = pb.Completed(
        finish_reason=pb.FINISH_REASON_STOP_SEQUENCE, stop_sequence="END", usage=pb.Usage(output_tokens=3)
    )
    completed.timings.total.FromMilliseconds(4500)
    analysis.completed.CopyFrom(completed)
    return analysis


def _full(retry_after_s: float | None = None) -> Status:
    code = grpc.StatusCode.UNAVAILABLE
    return rich_status(code, "the disk is full", reason="LOG_UNAVAILABLE", retry_after_s=retry_after_s)


async def test_a_complete_analysis_tells_all(server: ScriptedServer, caller: Caller) -> None:
    """What was asked for and what became of it are typed values, times in UTC and seconds."""
    server.analyses[ANALYSIS] = _complete()
    got = await caller.call("get", ANALYSIS)
    assert got == mondrian.Analysis(
        name=ANALYSIS,
        state=State.COMPLETED,
        create_time=datetime.fromtimestamp(1_800_000_000, UTC),
        end_time=datetime.fromtimestamp(1_800_000_005, UTC),
        request_id="r1",
        model="models/mondrian-tiny",
        advisor="advisors/ansel",
        prompt="What?",
        image_count=2,
        sampling=mondrian.Sampling(seed=7, max_tokens=512),
        time_limit_s=1.5,
        text="A cat.",
        finish_reason=mondrian.FinishReason.STOP_SEQUENCE,
        stop_sequence="END",
        usage=mondrian.Usage(output_tokens=3),
        timings=mondrian.Timings(total_s=4.5),
    )
    assert got.message == server.analyses[ANALYSIS]
    assert got.error is None


async def test_an_active_analysis_tells_where_it_is(server: ScriptedServer, caller: Caller) -> None:
    """Its progress is that of its newest event, and its text is the text so far."""
    analysis = pb.Analysis(name=ANALYSIS, state=pb.ANALYSIS_STATE_ACTIVE, text="A c")
    analysis.create_time.FromSeconds(1_800_000_000)
    analysis.progress.CopyFrom(pb.Progress(stage=pb.STAGE_GENERATING, message="G...", fraction=0.5, continuations=2))
    analysis.progress.elapsed.FromMilliseconds(2500)
    server.analyses[ANALYSIS] = analysis
    got = await caller.call("get", ANALYSIS)
    assert (got.state, got.text, got.end_time, got.usage) == (State.ACTIVE, "A c", None, None)
    assert got.progress == mondrian.Progress(
        sequence=0,
        analysis=ANALYSIS,
        create_time=datetime(2027, 1, 15, 8, 0, 2, 500_000, UTC),
        stage=mondrian.Stage.GENERATING,
        message="G...",
        fraction=0.5,
        elapsed_s=2.5,
        continuations=2,
    )


async def test_a_bad_end_is_the_error_that_a_loop_raises(server: ScriptedServer, caller: Caller) -> None:
    """A failed analysis holds its typed error, a cancelled one AnalysisCancelled, with usage and timings."""
    status = rich_status(grpc.StatusCode.INTERNAL, "three times", reason="ENGINE_CRASHED")
    failed = pb.Analysis(name="analyses/f", state=pb.ANALYSIS_STATE_FAILED)
    failed.failed.CopyFrom(pb.Failed(error=status, usage=pb.Usage(output_tokens=2)))
    cancelled = pb.Analysis(name="analyses/c", state=pb.ANALYSIS_STATE_CANCELLED, expired=True)
    cancelled.cancelled.CopyFrom(pb.Cancelled(stage=pb.STAGE_PREFILL))
    server.analyses = {"analyses/f": failed, "analyses/c": cancelled}
    first, second = await caller.call("get", "analyses/f"), await caller.call("get", "analyses/c")
    assert type(first.error) is mondrian.EngineCrashed
    assert (first.error.analysis, first.usage.output_tokens) == ("analyses/f", 2)
    assert type(second.error) is mondrian.AnalysisCancelled
    assert second.error.stage is mondrian.Stage.PREFILL
    assert second.expired


async def test_a_newer_servers_state_is_unknown(server: ScriptedServer, caller: Caller) -> None:
    """A value that this version does not know breaks nothing."""
    server.analyses[ANALYSIS] = pb.Analysis.FromString(pb.Analysis(name=ANALYSIS).SerializeToString() + b"\x10\x63")
    assert (await caller.call("get", ANALYSIS)).state is State.UNKNOWN


async def test_create_returns_the_analysis(server: ScriptedServer, caller: Caller) -> None:
    """Every option reaches the wire, as with analyze, and the answer is the new analysis."""
    got = await caller.call(
        "create", "hi", images=[b"picture"], advisor="ansel", max_tokens=9, time_limit=2, request_id="mine"
    )
    request = server.creations[0]
    assert request.request_id == "mine"
    expected = pb.AnalysisConfig(
        prompt="hi", images=[pb.Image(data=b"picture")], advisor="ansel", sampling=pb.Sampling(max_tokens=9)
    )
    expected.time_limit.FromSeconds(2)
    assert request.config == expected
    assert (got.name, got.state, got.prompt, got.request_id) == (ANALYSIS, State.ACTIVE, "hi", "mine")


async def test_create_is_repeated_while_the_server_is_unavailable(server: ScriptedServer, caller: Caller) -> None:
    """The same request, with the same drawn name, is sent until it is answered."""
    server.refusals += [rich_status(grpc.StatusCode.UNAVAILABLE, "ending", reason="SHUTTING_DOWN")] * 2
    assert (await caller.call("create", "hi", images=[b"picture"])).name == ANALYSIS
    first, second, third = server.creations
    assert first == second == third
    assert first.request_id


@pytest.mark.alone
async def test_create_gives_up_before_a_wait_beyond_its_timeout(server: ScriptedServer, caller: Caller) -> None:
    """A server that asks for more time than is left is not tried again: its refusal is raised at once."""
    server.refusals.append(_full(retry_after_s=60.0))
    began = time.monotonic()
    with pytest.raises(mondrian.LogUnavailable):
        await caller.call("create", "hi", timeout=30.0)
    assert time.monotonic() - began < 1.0
    assert len(server.creations) == 1


@pytest.mark.alone
async def test_create_gives_up_at_its_timeout(server: ScriptedServer, caller: Caller) -> None:
    """The last try's refusal is raised, or, where the deadline cuts that try off, is what the deadline comes from."""
    server.refusals += [_full()] * 100
    began = time.monotonic()
    with pytest.raises(mondrian.MondrianError) as caught:
        await caller.call("create", "hi", timeout=1.0)
    assert time.monotonic() - began < 1.4
    assert len(server.creations) > 1
    assert isinstance(caught.value.__cause__ or caught.value, mondrian.LogUnavailable)


async def test_a_deadline_tells_what_came_before_it(server: ScriptedServer, caller: Caller) -> None:
    """A try after a refusal that is not answered in time raises the deadline from the refusal."""
    server.refusals += [_full(), None]
    with pytest.raises(mondrian.DeadlineExceeded) as caught:
        await caller.call("create", "hi", timeout=2.0)
    assert isinstance(caught.value.__cause__, mondrian.LogUnavailable)


async def test_what_helps_nothing_is_not_repeated(server: ScriptedServer, caller: Caller) -> None:
    """A reused request id is raised at once."""
    code = grpc.StatusCode.INVALID_ARGUMENT
    server.refusals.append(rich_status(code, "used", reason="REQUEST_ID_REUSED", field="request_id"))
    with pytest.raises(mondrian.RequestIdReused) as caught:
        await caller.call("create", "hi", request_id="mine")
    assert [violation.field for violation in caught.value.field_violations] == ["request_id"]
    assert len(server.creations) == 1


async def test_list_goes_through_all_pages(server: ScriptedServer, caller: Caller) -> None:
    """All analyses come, in the server's order; states and page size are passed on."""
    server.analyses = {f"analyses/{n}": _complete(f"analyses/{n}") for n in range(5)}
    server.analyses["analyses/1"].state = pb.ANALYSIS_STATE_FAILED
    assert [analysis.name for analysis in await caller.list()] == [f"analyses/{n}" for n in range(5)]
    some = await caller.list(states=[State.COMPLETED, State.CANCELLED], page_size=7)
    assert [analysis.name for analysis in some] == [f"analyses/{n}" for n in (0, 2, 3, 4)]
    assert list(server.listings[-1].states) == [State.COMPLETED, State.CANCELLED]
    assert server.listings[-1].page_size == 7


async def test_list_is_lazy(server: ScriptedServer, client: mondrian.AsyncClient) -> None:
    """No page is fetched before one needs it."""
    server.analyses = {f"analyses/{n}": _complete(f"analyses/{n}") for n in range(5)}
    listing = client.list()
    assert server.listings == []
    assert (await anext(listing)).name == "analyses/0"
    assert (await anext(listing)).name == "analyses/1"
    assert len(server.listings) == 1
    with mondrian.Client(server.address) as threaded:
        few = await asyncio.to_thread(
            lambda: [analysis.name for analysis, _ in zip(threaded.list(), "ab", strict=False)]
        )
    assert few == ["analyses/0", "analyses/1"]


async def test_cancel_returns_the_analysis(server: ScriptedServer, caller: Caller) -> None:
    """An active analysis comes back cancelled, an ended one as it is."""
    await caller.call("create", "hi")
    assert (await caller.call("cancel", ANALYSIS)).state is State.CANCELLED
    server.analyses[ANALYSIS] = _complete()
    assert (await caller.call("cancel", ANALYSIS)).state is State.COMPLETED


async def test_delete_needs_an_ended_analysis(server: ScriptedServer, caller: Caller) -> None:
    """An active one is AnalysisActive; an ended one goes, and is not found any more."""
    await caller.call("create", "hi")
    with pytest.raises(mondrian.AnalysisActive):
        await caller.call("delete", ANALYSIS)
    await caller.call("cancel", ANALYSIS)
    await caller.call("delete", ANALYSIS)
    for method in ("get", "delete"):
        with pytest.raises(mondrian.AnalysisNotFound):
            await caller.call(method, ANALYSIS)
