"""Start and stop: `mondrian serve` as an operator meets it, by flags, files, signals, `ps` and the log."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2

from mondrian.v1 import analysis_pb2 as pb
from tests.checkpoints import write_truncated
from tests.conditions import eventually
from tests.service.calls import HEALTH_WATCH, NOT_SERVING, SERVING, Connection
from tests.service.files import png_with_text
from tests.service.programs import Program, left_of, program, start

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CANARY = "canary-7f3a91"


def tokens(count: int) -> pb.AnalysisConfig:
    """Return a request for exactly so many tokens."""
    return pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=count, min_tokens=count))


# Starting


@pytest_asyncio.fixture(scope="module")
async def steady(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Program]:
    """A server process that nobody ends."""
    async with program(tmp_path_factory.mktemp("steady"), "--log-level", "debug") as running:
        yield running


async def refusal(folder: Path, *arguments: str, **environment: str) -> str:
    """Start a server that cannot start, and return the one line with which it ends, promptly and with status 1."""
    process = await start(folder, *arguments, **environment)
    try:
        await asyncio.wait_for(process.communicate(), 20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    text = (folder / "stderr").read_text()
    (line,) = [line for line in text.splitlines() if not line.startswith("{")]
    assert process.returncode == 1
    assert "Traceback" not in text
    assert line.startswith("mondrian: ")
    await eventually(lambda: not left_of(folder), within_s=2.0)
    return line


async def test_an_unknown_setting_in_a_file_is_told(tmp_path: Path) -> None:
    """The line names the file and the key."""
    config = tmp_path / "mondrian.toml"
    config.write_text("slots = 4\nslotz = 4\n")
    assert await refusal(tmp_path, "--config", str(config)) == (f"mondrian: {config}: slotz: there is no such setting")


async def test_a_data_directory_below_a_file_is_told(tmp_path: Path) -> None:
    """A folder that nobody can make, not even root, is named."""
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "data"
    line = await refusal(tmp_path, "--data-dir", str(folder), "--grpc-address", "127.0.0.1:0")
    assert line == f"mondrian: data_dir: {folder} is not a folder"


async def test_half_a_checkpoint_is_told(tmp_path: Path) -> None:
    """Weights that are cut short end the service, and no engine is left behind to try again."""
    model = write_truncated(tmp_path / "half")
    line = await refusal(tmp_path, "--model", str(model), "--grpc-address", "127.0.0.1:0")
    assert str(model) in line


async def test_a_port_of_another_server_is_not_shared(steady: Program, tmp_path: Path) -> None:
    """A second server does not take half of the first one's calls."""
    address = f"127.0.0.1:{steady.port}"
    assert address in await refusal(tmp_path, "--grpc-address", address)


async def test_a_data_directory_of_another_server_is_not_shared(steady: Program, tmp_path: Path) -> None:
    """A second server on the same folder ends, and the first one goes on."""
    data = steady.folder / "data"
    line = await refusal(tmp_path, "--data-dir", str(data), "--grpc-address", "127.0.0.1:0")
    assert line == f"mondrian: data_dir: {data} is in use by another server"
    assert await steady.is_serving()


# Running


async def test_ps_names_the_three_processes(steady: Program) -> None:
    """The server, the engine and the image process call themselves what they are."""
    names = sorted(" ".join(one.cmdline()).strip() for one in steady.family)
    assert names == ["mondrian: engine", "mondrian: images", "mondrian: server"]


async def test_the_log_names_analyses_and_holds_nothing_of_theirs(steady: Program) -> None:
    """Each line about an analysis carries its name; no line holds a prompt, an answer or bytes of an image."""
    image = png_with_text(CANARY)
    good = pb.AnalysisConfig(
        prompt=f"{CANARY} prompt",
        instructions=f"{CANARY} instructions",
        images=[pb.Image(data=image)],
        sampling=pb.Sampling(max_tokens=30, min_tokens=30, stop=[f"{CANARY} stop"]),
    )
    outcome = await steady.ask(good)
    too_long = pb.AnalysisConfig(prompt=CANARY * 2_000)
    bad_image = pb.AnalysisConfig(prompt=CANARY, images=[pb.Image(data=CANARY.encode())])
    refused = pb.AnalysisConfig(prompt=CANARY, sampling=pb.Sampling(stop=[CANARY] * 9))
    failures = [await steady.ask(config) for config in (too_long, bad_image, refused)]
    broken = await steady.send(b"\x0a\x10\x0a\x0e\xff" + CANARY.encode()).outcome()
    assert [failed.code for failed in (*failures, broken)] == [grpc.StatusCode.INVALID_ARGUMENT] * 4
    gone = steady.call(tokens(2_000))
    await gone.until_token()
    gone.cancel()
    await eventually(lambda: [line for line in steady.log if line["event"] == "cancelled"])

    told = [line for line in steady.log if line["event"] in ("accepted", "completed", "failed", "cancelled")]
    assert [line["event"] for line in told].count("accepted") == 4
    for line in told:
        assert line["analysis"].startswith("analyses/")
    by_name = {name: [line["event"] for line in told if line["analysis"] == name] for name in _names(told)}
    assert by_name[outcome.events[0].analysis] == ["accepted", "completed"]
    assert sorted(events[-1] for events in by_name.values()) == ["cancelled", "completed", "failed", "failed"]
    assert CANARY not in steady.errors
    assert outcome.text not in steady.errors


def _names(lines: list[dict[str, Any]]) -> set[str]:
    return {line["analysis"] for line in lines}


# Stopping


class HealthWatch:
    """The statuses that a watcher of the server's health has seen."""

    def __init__(self, up: Connection) -> None:
        """Begin to watch."""
        watch: grpc.aio.UnaryStreamMultiCallable[Any, Any] = up.channel.unary_stream(
            HEALTH_WATCH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self.statuses: list[int] = []
        self._call = watch(health_pb2.HealthCheckRequest())
        self._reader = asyncio.create_task(self._read())

    async def until(self, status: int) -> None:
        """Wait until a status is the newest."""
        await eventually(lambda: self.statuses[-1:] == [status])

    async def close(self) -> None:
        """End the watch, if the server has not."""
        self._call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    async def _read(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for answer in self._call:
                self.statuses.append(answer.status)


async def assert_ended_cleanly(running: Program) -> None:
    """Assert that the server ends soon with status 0, leaves no process, and logs no error."""
    assert await running.ended(within_s=5.0) == 0
    assert not left_of(running.folder)
    assert not [line for line in running.log if "exception" in line or line["level"] in ("error", "critical")]
    assert running.log[-1]["event"] == "stopped"


async def test_sigterm_lets_running_analyses_finish(tmp_path: Path) -> None:
    """Health turns first, new calls are refused with a delay to retry, the running one completes, the status is 0."""
    async with program(tmp_path, "--shutdown-grace-s", "30") as running:
        watch = HealthWatch(running)
        await watch.until(SERVING)
        call = running.call(tokens(400))
        await call.until_token()
        running.process.send_signal(signal.SIGTERM)
        await watch.until(NOT_SERVING)
        refused = await running.ask(tokens(1))
        assert not call.ended
        assert (refused.code, refused.reason) == (UNAVAILABLE, "SHUTTING_DOWN")
        assert refused.retry_after_s > 0
        assert refused.events == []
        outcome = await call.outcome()
        assert outcome.completed.usage.output_tokens == 400
        assert outcome.text == outcome.completed.text
        await assert_ended_cleanly(running)
        assert watch.statuses == [SERVING, NOT_SERVING]
        await watch.close()


async def test_what_outlasts_the_grace_is_told_that_the_server_ends(tmp_path: Path) -> None:
    """The stream of an analysis that is still running ends UNAVAILABLE with a delay to retry, and no terminal event."""
    async with program(tmp_path, "--shutdown-grace-s", "0.3") as running:
        call = running.call(tokens(4_000))
        await call.until_token()
        running.process.send_signal(signal.SIGTERM)
        outcome = await call.outcome()
        assert (outcome.code, outcome.reason) == (UNAVAILABLE, "SHUTTING_DOWN")
        assert outcome.retry_after_s > 0
        assert outcome.events[-1].WhichOneof("payload") in ("token", "progress")
        await assert_ended_cleanly(running)


async def test_sigterm_while_the_model_loads_ends_it_cleanly(tmp_path: Path) -> None:
    """Nobody waits for the model: the waiting analysis is told, and the status is 0."""
    async with program(tmp_path, "--shutdown-grace-s", "0", ready=False) as running:
        call = running.call(tokens(5))
        await call.until_stage(pb.STAGE_LOADING_MODEL)
        running.process.send_signal(signal.SIGTERM)
        outcome = await call.outcome()
        assert (outcome.code, outcome.reason) == (UNAVAILABLE, "SHUTTING_DOWN")
        await assert_ended_cleanly(running)


@pytest.mark.alone
async def test_a_second_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    """An operator who insists does not wait for the grace; the children go with the server."""
    async with program(tmp_path, "--shutdown-grace-s", "600") as running:
        call = running.call(tokens(4_000))
        await call.until_token()
        running.process.send_signal(signal.SIGTERM)
        await eventually(lambda: [line for line in running.log if line["event"] == "stopping"])
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended(within_s=2.0) == -signal.SIGTERM
        await eventually(lambda: not left_of(running.folder), within_s=2.0)
        assert time.monotonic() - began < 2.0
        assert (await call.outcome()).code is UNAVAILABLE


@pytest.mark.alone
@pytest.mark.parametrize("ready", [True, False], ids=["generating", "loading"])
async def test_children_do_not_outlive_a_killed_server(tmp_path: Path, ready: bool) -> None:
    """After `kill -9` of the server its children end by themselves within 2 s, and the next one takes its place."""
    async with program(tmp_path, ready=ready) as running:
        call = running.call(tokens(4_000))
        await (call.until_token() if ready else call.until_stage(pb.STAGE_LOADING_MODEL))
        assert len(left_of(running.folder)) == 3
        running.process.kill()
        await eventually(lambda: not left_of(running.folder), within_s=2.0)
        assert (await call.outcome()).code is UNAVAILABLE
        async with program(tmp_path, "--grpc-address", f"127.0.0.1:{running.port}", ready=False) as successor:
            assert successor.port == running.port
