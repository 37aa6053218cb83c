"""Fuzzed requests: whatever is sent, the answer is one of the contract's, nobody is harmed, and nothing is left."""

import asyncio
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.conditions import eventually
from tests.fuzz.attempts import Attempt, Noise, attempts
from tests.fuzz.sending import Tally, send
from tests.service.calls import Running, settings_for, started
from tests.service.files import sample

MEBIBYTE = 1024 * 1024
GROUP = 20
"""Attempts that are made at once."""
ROUND = 25
"""Groups of one seed."""
SLACK_BYTES = 64 * MEBIBYTE
"""How much resident memory may grow over a run: caches that fill up, and what hypothesis remembers of a round."""
SLACK_DESCRIPTORS = 4
QUESTION = pb.AnalysisConfig(
    prompt="Describe this image.", images=[pb.Image(data=sample(".jpg"))], sampling=pb.Sampling(max_tokens=40)
)


class Siege:
    """A service, and what is sent to it."""

    def __init__(self, up: Running) -> None:
        """Begin with nothing sent."""
        self._up = up
        self.tally = Tally()
        self._names: tuple[str, ...] = ("analyses/none",)

    async def learn_names(self) -> None:
        """Let the next attempts be about analyses that are there, too."""
        answer = await self._up.analyses.ListAnalyses(service_pb.ListAnalysesRequest(page_size=20))
        self._names = tuple(analysis.name for analysis in answer.analyses) or self._names

    async def round(self, number: int) -> None:
        """Make the attempts of a seed; the failing one is told."""
        loop = asyncio.get_running_loop()
        await self.learn_names()

        # Nothing is kept beside the tests: the number of the round gives the same attempts again.
        @seed(number)
        @settings(
            max_examples=ROUND,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        )
        @given(st.lists(attempts(lambda: self._names), min_size=GROUP, max_size=GROUP))
        def attack(group: list[Attempt | Noise]) -> None:
            note(f"round {number}")
            asyncio.run_coroutine_threadsafe(self._send(group), loop).result()

        await asyncio.to_thread(attack)

    async def _send(self, group: list[Attempt | Noise]) -> None:
        port = self._up.service.port
        # A channel for each group: metadata that HTTP/2 does not allow costs the connection, and others on it.
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            await asyncio.gather(*(send(channel, port, attempt, self.tally) for attempt in group))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What is held at one moment."""

    engine_pid: int
    tasks: int
    descriptors: int
    server_bytes: int
    engine_bytes: int

    @classmethod
    async def of(cls, up: Running) -> Self:
        """Look when everything has ended, the handlers of calls that were left included."""
        await eventually(lambda: up.held == (0, 0, 0, 0), within_s=90)
        tasks = await _fewest_tasks()
        gc.collect()
        engine_pid = up.service.engine.pid
        assert engine_pid is not None
        server = psutil.Process()
        return cls(
            engine_pid=engine_pid,
            tasks=tasks,
            descriptors=server.num_fds(),
            server_bytes=server.memory_info().rss,
            engine_bytes=psutil.Process(engine_pid).memory_info().rss,
        )

    def __str__(self) -> str:
        """Return the numbers in one line."""
        server, engine = self.server_bytes // MEBIBYTE, self.engine_bytes // MEBIBYTE
        return f"{self.tasks} tasks, {self.descriptors} descriptors, {server} and {engine} MiB"


async def _fewest_tasks() -> int:
    """Count what runs for two seconds: a leak stays, what ends or begins for a moment does not."""
    counts: list[int] = []
    for _ in range(20):
        counts.append(len(asyncio.all_tasks()))
        await asyncio.sleep(0.1)
    return min(counts)


def _children() -> set[int]:
    """Return the processes below this one, those of other tests' services among them."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def besiege(folder: Path, rounds: int) -> None:
    """Send rounds of attempts and fail where the service is not as before."""
    # Whoever asks for much gets little, so that the attempts and not their answers take the time.
    limits = settings_for(folder, default_max_tokens=4, max_context_tokens=160, slots=8, lookahead=2)
    others = _children()
    async with started(limits) as up:
        expected = (await up.ask(QUESTION)).text
        children = _children() - others
        siege = Siege(up)
        await siege.round(0)  # What is loaded at first use, or remembered of a round, is no leak.
        before = await Holding.of(up)
        for number in range(1, rounds):
            await siege.round(number)
        after = await Holding.of(up)
        print(f"{siege.tally.count} attempts: {siege.tally.outcomes}; {before} → {after}")  # noqa: T201 - shown with -s
        assert await up.is_serving()
        assert (await up.ask(QUESTION)).text == expected
        assert _children() - others == children
        assert after.engine_pid == before.engine_pid
        assert up.service.engine.restarts == 0
        assert after.tasks <= before.tasks
        assert after.descriptors <= before.descriptors + SLACK_DESCRIPTORS
        assert after.server_bytes - before.server_bytes <= SLACK_BYTES
        assert after.engine_bytes - before.engine_bytes <= SLACK_BYTES


@pytest.mark.timeout(600)
async def test_fuzzed_requests_do_no_harm(tmp_path: Path) -> None:
    """A thousand calls with wrong, extreme, broken, half-sent and abandoned requests, and bytes that are no calls."""
    await besiege(tmp_path, 2)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_ten_thousand_fuzzed_requests_do_no_harm(tmp_path: Path) -> None:
    """The same, for long."""
    await besiege(tmp_path, 20)
