"""Metrics: the numbers of a scrape are what callers did and got, whatever the end."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import grpc
import httpx
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.callers import CallerLimits
from mondrian_server.callers.editing import add_key
from mondrian_server.metrics import CONTENT_TYPE
from tests.conditions import eventually
from tests.service.calls import Outcome, Running, settings_for, started
from tests.service.files import archive
from tests.service.scrapes import Scrape, parsed, scrape

LONG = pb.Sampling(max_tokens=1500, min_tokens=1500)


@pytest_asyncio.fixture
async def small(tmp_path: Path) -> AsyncGenerator[Running]:
    """A service of one slot, in which one analysis may wait."""
    settings = settings_for(tmp_path, slots=1, lookahead=0, max_waiting_analyses=1, prefill_step_tokens=16)
    async with started(settings) as running:
        yield running


def asking(prompt: str = "Hello", **fields: object) -> pb.AnalysisConfig:
    """Return a request of a few tokens, unless it says otherwise."""
    return pb.AnalysisConfig(prompt=prompt, **{"sampling": pb.Sampling(max_tokens=3)} | fields)  # pyright: ignore[reportArgumentType]  # fields by name


async def idle(up: Running) -> None:
    """Wait until nothing runs, by the server's account and by the engine's."""
    await eventually(lambda: up.held == (0, 0, 0, 0) and up.service.engine.status.slots_in_use == 0)


async def test_completed_analyses_are_counted_with_their_tokens(small: Running, picture: bytes) -> None:
    """Ends by finish reason, tokens in and out, times and images are those of the streams."""
    configs = [
        asking("What is in the picture?", images=[pb.Image(data=picture)], sampling=pb.Sampling(max_tokens=4)),
        asking("What is in the picture?", images=[pb.Image(data=picture)], sampling=pb.Sampling(max_tokens=300)),
        asking(sampling=pb.Sampling(max_tokens=40, min_tokens=40)),
        asking(sampling=pb.Sampling(max_tokens=3_900, min_tokens=3_900), time_limit=Duration(seconds=1)),
    ]
    outcomes = [await small.ask(config) for config in configs]
    seen = scrape(small)
    reasons = [pb.FinishReason.Name(outcome.completed.finish_reason) for outcome in outcomes]
    expected = {name: float(reasons.count(f"FINISH_REASON_{name}")) for name in ("MAX_TOKENS", "STOP", "DEADLINE")}
    assert seen.by("mondrian_analyses_completed_total", "finish_reason") == expected
    assert seen.value("mondrian_analyses_accepted_total") == 4
    usages = [outcome.completed.usage for outcome in outcomes]
    assert seen.value("mondrian_prompt_tokens_total") == sum(usage.prompt_tokens for usage in usages)
    assert seen.value("mondrian_prompt_tokens_cached_total") == sum(usage.cached_tokens for usage in usages) > 0
    assert seen.value("mondrian_image_tokens_total") == sum(usage.image_tokens for usage in usages) > 0
    output_tokens = sum(usage.output_tokens for usage in usages)
    assert seen.value("mondrian_output_tokens_total") == output_tokens
    assert seen.value("mondrian_inter_token_seconds_count") == output_tokens - len(outcomes)
    assert seen.value("mondrian_image_decode_seconds_count") == 2
    assert seen.value("mondrian_stage_seconds_count", stage="encode") == 1, "the second time it is in the cache"
    check_times(seen, outcomes)


def check_times(seen: Scrape, outcomes: list[Outcome]) -> None:
    """The times are those that the streams have told."""
    timings = [outcome.completed.timings for outcome in outcomes]
    for name, told in (
        ("mondrian_queue_seconds", [timing.queue for timing in timings]),
        ("mondrian_time_to_first_token_seconds", [timing.time_to_first_token for timing in timings]),
    ):
        assert seen.value(f"{name}_count") == len(outcomes)
        assert abs(seen.value(f"{name}_sum") - sum(map(seconds, told))) < 1e-5, name
    lives = seen.value("mondrian_analysis_seconds_sum", end="completed")
    assert abs(lives - sum(seconds(timing.total) for timing in timings)) < 1e-5
    decode = seen.value("mondrian_stage_seconds_sum", stage="decode")
    assert abs(decode - seen.value("mondrian_inter_token_seconds_sum")) < 1e-5


def seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.ToNanoseconds() / 1e9


async def test_how_things_stand_is_what_is_running_and_waiting(small: Running) -> None:
    """With one analysis at work and one waiting the gauges say so, and who comes too many is counted by reason."""
    first = small.call(asking(sampling=LONG))
    await first.until_token()
    second = small.call(asking())
    await second.until_stage(pb.STAGE_QUEUED)
    refused = await small.ask(asking())
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    seen = scrape(small)
    gauges = {
        "mondrian_analyses_active": 2,
        "mondrian_analyses_running": 1,
        "mondrian_analyses_waiting": 1,
        "mondrian_analyses_waiting_limit": 1,
        "mondrian_watchers": 2,
        "mondrian_engine_slots": 1,
        "mondrian_engine_slots_in_use": 1,
        "mondrian_engine_rows_held": 1,
        "mondrian_log_available": 1,
    }
    assert {name: seen.value(name) for name in gauges} == gauges
    assert seen.value("mondrian_queue_oldest_seconds") > 0
    assert seen.by("mondrian_engine_state", "state") == {"ready": 1}
    assert seen.by("mondrian_analyses_refused_total", "reason") == {"TOO_MANY_ANALYSES": 1}
    assert seen.value("mondrian_rpcs_open", method="mondrian.v1.AnalysisService/Analyze") == 2
    first.cancel()
    assert (await second.outcome()).code is grpc.StatusCode.OK
    await idle(small)
    seen = scrape(small)
    assert [seen.value(name) for name in list(gauges)[:3]] == [0, 0, 0]
    assert seen.value("mondrian_queue_oldest_seconds") == 0
    assert seen.value("mondrian_watchers") == 0


async def test_cancels_are_counted_by_stage(small: Running) -> None:
    """A cancel counts for the stage in which it came: while waiting, while reading the prompt, while generating."""
    running = small.call(asking(sampling=LONG))
    await running.until_token()
    waiting = small.call(asking())
    await waiting.until_stage(pb.STAGE_QUEUED)
    waiting.cancel()
    await eventually(lambda: small.service.scheduler.waiting == 0)
    running.cancel()
    await idle(small)
    often = pb.Delivery(progress_interval=Duration(nanos=100_000_000))
    reading = small.call(asking("all the colours " * 500, sampling=LONG, delivery=often))
    await reading.until(lambda event: 0 < event.progress.prompt_tokens_done < event.progress.prompt_tokens_total)
    reading.cancel()
    await idle(small)
    seen = scrape(small)
    cancels = {"QUEUED": 1, "GENERATING": 1, "PREFILL": 1}
    assert seen.by("mondrian_analyses_cancelled_total", "stage") == cancels
    assert seen.value("mondrian_analysis_seconds_count", end="cancelled") == 3
    assert seen.value("mondrian_time_to_first_token_seconds_count") == 1
    assert seen.by("mondrian_rpcs_total", "code").get("CANCELLED") == 3


async def test_failures_are_counted_by_reason_and_calls_by_code(small: Running) -> None:
    """What fails counts by its reason, each call by its method and code; no name that a caller invents is kept."""
    bad_image = await small.ask(asking(images=[pb.Image(data=archive())]))
    too_long = await small.ask(asking("word " * 3000))
    in_time = await small.ask(asking("all the colours " * 500, time_limit=Duration(nanos=1_000_000)))
    empty = await small.ask(pb.AnalysisConfig())
    with contextlib.suppress(grpc.aio.AioRpcError):
        await small.get("analyses/none")
    with contextlib.suppress(grpc.aio.AioRpcError):
        await small.channel.unary_unary("/secret.Service/Secret")(b"")
    reasons = [outcome.reason for outcome in (bad_image, too_long, in_time)]
    assert reasons == ["INVALID_IMAGE", "CONTEXT_EXCEEDED", "DEADLINE_EXCEEDED"]
    seen = scrape(small)
    assert seen.by("mondrian_analyses_failed_total", "reason") == dict.fromkeys(reasons, 1)
    assert seen.by("mondrian_images_refused_total", "reason") == {"not_accepted": 1}
    analyze = "mondrian.v1.AnalysisService/Analyze"
    assert empty.code is grpc.StatusCode.INVALID_ARGUMENT
    assert seen.value("mondrian_rpcs_total", method=analyze, code="INVALID_ARGUMENT") == 3
    assert seen.value("mondrian_rpcs_total", method=analyze, code="DEADLINE_EXCEEDED") == 1
    assert seen.value("mondrian_rpc_seconds_count", method=analyze) == 4
    get = "mondrian.v1.AnalysisService/GetAnalysis"
    assert seen.value("mondrian_rpcs_total", method=get, code="NOT_FOUND") == 1
    assert seen.value("mondrian_rpcs_total", method="unknown", code="UNIMPLEMENTED") == 1
    assert not [label for label in seen.labels() if "ecret" in label]
    assert set(seen.by("mondrian_rpcs_open", "method")) == set(), "every call has ended"


async def test_calls_of_nobody_are_counted_and_no_label_names_a_caller(tmp_path: Path) -> None:
    """On a server with keys a call without one counts as UNAUTHENTICATED; who the others are stands in no label."""
    key = add_key(tmp_path / "keys.toml", "bob-the-caller", CallerLimits()).text
    async with started(settings_for(tmp_path / "data", keys_file=tmp_path / "keys.toml")) as up:
        assert (await up.ask(asking())).code is grpc.StatusCode.UNAUTHENTICATED
        assert (await up.by(key).ask(asking())).code is grpc.StatusCode.OK
        seen = scrape(up)
    analyze = "mondrian.v1.AnalysisService/Analyze"
    assert seen.value("mondrian_rpcs_total", method=analyze, code="UNAUTHENTICATED") == 1
    assert seen.value("mondrian_rpcs_total", method=analyze, code="OK") == 1
    assert not [label for label in seen.labels() if "bob" in label]


async def test_a_deadline_of_the_call_is_no_cancel(small: Running) -> None:
    """A watch that its deadline ends is counted as such, whatever gRPC told the server; one cancelled is not."""

    def ended_by(code: str) -> float:
        return scrape(small).value("mondrian_rpcs_total", method="mondrian.v1.AnalysisService/WatchAnalysis", code=code)

    running = small.call(asking(sampling=pb.Sampling(max_tokens=3_900, min_tokens=3_900)))
    request = service_pb.WatchAnalysisRequest(name=(await running.until_token()).analysis)
    # In place of the second, gRPC sends the first once more.
    timeouts_s = (2.05, 2.005)
    for timeout_s in timeouts_s:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for _ in small.analyses.WatchAnalysis(request, timeout=timeout_s):
                pass
    await eventually(lambda: ended_by("DEADLINE_EXCEEDED") == len(timeouts_s))
    assert ended_by("CANCELLED") == 0
    watch = small.analyses.WatchAnalysis(request, timeout=30.0)
    await anext(aiter(watch))
    watch.cancel()
    await eventually(lambda: ended_by("CANCELLED") == 1)
    assert ended_by("DEADLINE_EXCEEDED") == len(timeouts_s)
    running.cancel()
    await idle(small)


async def test_a_lost_engine_is_counted_and_seen(small: Running) -> None:
    """After kill -9 the state leaves ready, the restart and the continuation are counted, the analysis once."""
    call = small.call(asking(sampling=pb.Sampling(max_tokens=300, min_tokens=300)))
    await call.until_token()
    assert small.service.engine.pid is not None
    os.kill(small.service.engine.pid, signal.SIGKILL)
    await eventually(lambda: scrape(small).value("mondrian_engine_state", state="ready") == 0)
    assert scrape(small).value("mondrian_engine_slots_in_use") == 0
    outcome = await call.outcome()
    assert outcome.completed.usage.output_tokens == 300
    seen = scrape(small)
    assert seen.value("mondrian_engine_restarts_total") == 1
    assert seen.value("mondrian_analyses_continued_total") == 1
    assert seen.value("mondrian_engine_state", state="ready") == 1
    assert seen.value("mondrian_queue_seconds_count") == 1
    assert seen.value("mondrian_output_tokens_total") == 300, "no token is counted twice"
    assert seen.value("mondrian_inter_token_seconds_count") == 299


async def test_what_is_slow_to_ask_for_is_looked_at_beside_the_loop(small: Running) -> None:
    """Memory of all processes and the log's size come with a delay; the scrape itself looks at nothing but itself."""
    await small.ask(asking())
    await eventually(lambda: scrape(small).value("mondrian_log_analyses") == 1, within_s=30.0)
    seen = scrape(small)
    memory = seen.by("mondrian_process_resident_memory_bytes", "process")
    assert set(memory) == {"server", "engine", "images"}
    assert all(use > 10 << 20 for use in memory.values())
    assert seen.value("mondrian_log_file_bytes") > 0
    assert seen.value("mondrian_log_kept_bytes") > 0
    assert seen.value("mondrian_event_loop_lag_seconds_count") > 0
    with watched_system_calls() as calls:
        for _ in range(3):
            scrape(small)
    assert [call for call in calls if not call.startswith("/proc/self/")] == []


@contextlib.contextmanager
def watched_system_calls() -> Generator[list[str]]:
    """Gather what this thread opens, lists, starts or connects to, by the interpreter's own audit."""
    calls: list[str] = []
    watching = [True]
    events = ("open", "os.listdir", "os.scandir", "subprocess.Popen", "socket.connect", "sqlite3.connect")
    thread = threading.get_ident()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in events and threading.get_ident() == thread:
            calls.append(str(arguments[0]))

    sys.addaudithook(hook)  # It cannot be taken away, only told to be silent.
    try:
        yield calls
    finally:
        watching.clear()


async def test_a_scrape_over_http_gives_the_service_its_content_type_and_cache_rules(tmp_path: Path) -> None:
    """The gateway in the server's process serves the numbers of the whole service, as Prometheus asks for them."""
    async with started(settings_for(tmp_path, http_address="127.0.0.1:0")) as up:
        assert up.service.gateway is not None
        await up.ask(asking())
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{up.service.gateway.port}") as http:
            answer = await http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,*/*"})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == CONTENT_TYPE
        seen = parsed(answer.content)
        assert seen.value("mondrian_analyses_accepted_total") == 1
        assert seen.value("mondrian_engine_state", state="ready") == 1


async def test_a_gateway_on_its_own_tells_of_its_own_process(tmp_path: Path) -> None:
    """Its metrics are what runs and what the process uses; nothing of a service that it only calls."""
    command = (sys.executable, "-m", "mondrian_server", "gateway", "--target", "127.0.0.1:1")
    process = await asyncio.create_subprocess_exec(
        *command, "--http-address", "127.0.0.1:0", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        address = line.rsplit(maxsplit=1)[-1].rstrip("/")
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"{address}/metrics")
        names = {name for name, _ in parsed(answer.content).samples}
        assert "mondrian_build_info" in names
        assert "process_resident_memory_bytes" in names or sys.platform != "linux"
        assert {name for name in names if not name.startswith("process_")} == {"mondrian_build_info"}
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)
