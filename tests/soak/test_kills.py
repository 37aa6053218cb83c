"""Kills: engines and servers die again and again under load, and no client's text is any different."""

import asyncio
import contextlib
import os
import random
import signal
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mondrian import AsyncClient, Completed, Event, Token
from tests.checkpoints import EMBEDDED
from tests.conditions import eventually
from tests.service.calls import Running, settings_for, started
from tests.service.programs import SERVE

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]

ENGINE_KILLS = 100
SERVER_KILLS = 20
WORKERS = 8
SAMPLES = sorted(path for path in (EMBEDDED / "samples").iterdir() if path.suffix != ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One of the analyses that the workers repeat."""

    prompt: str
    images: tuple[Path, ...] = ()
    advisor: str = ""
    max_tokens: int = 300
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


CASES = (
    Case(prompt="Go on."),
    Case(prompt="Go on.", temperature=0.9, seed=1),
    Case(prompt="Describe this image in detail.", images=(SAMPLES[0],), temperature=0.7, seed=2),
    Case(prompt="Describe this image.", images=(SAMPLES[1],), repetition_penalty=1.2),
    Case(prompt="Say much.", temperature=1.3, top_p=0.9, seed=3, stop=("zzz", "the the")),
    Case(prompt="What do you see?", images=(SAMPLES[2], SAMPLES[3]), temperature=1.0, seed=4),
    Case(prompt="Describe this image.", images=(SAMPLES[4],), advisor="ansel", temperature=0.5, seed=5),
    Case(prompt="héllo 根據您的問題 💭", temperature=1.1, seed=6),
)


@dataclass(slots=True)
class Tally:
    """What the workers have seen."""

    done: int = 0
    continued: int = 0
    faults: list[str] = field(default_factory=list[str])


async def run(client: AsyncClient, case: Case) -> tuple[str, list[Event]]:
    """Make an analysis by the client's own means and return its text, put together from tokens, and its events."""
    events: list[Event] = []
    stream = client.analyze(
        case.prompt,
        images=case.images,
        advisor=case.advisor,
        max_tokens=case.max_tokens,
        min_tokens=case.max_tokens // 2,
        temperature=case.temperature,
        top_p=case.top_p,
        repetition_penalty=case.repetition_penalty,
        seed=case.seed,
        stop=case.stop,
    )
    async with stream:
        async for event in stream:
            events.append(event)  # noqa: PERF401  # an async comprehension would lose them at an error
    return "".join(event.text for event in events if isinstance(event, Token)), events


async def work(client: AsyncClient, case: Case, expected: str, tally: Tally, over: asyncio.Event) -> None:
    """Repeat one analysis until it is over, and note every difference."""
    while not over.is_set():
        try:
            text, events = await run(client, case)
        except Exception as error:
            tally.faults.append(f"{case.prompt!r} raised {error!r}")
            return
        sequences = [event.sequence for event in events]
        if sequences != list(range(1, len(events) + 1)):
            tally.faults.append(f"{case.prompt!r} has sequences {sequences}")
        last = events[-1]
        if text != expected or not isinstance(last, Completed) or last.text != expected:
            tally.faults.append(f"{case.prompt!r} gave {text!r}, not {expected!r}")
        tally.done += 1
        tally.continued += any(getattr(event, "continuations", 0) for event in events)


@contextlib.asynccontextmanager
async def load(client: AsyncClient, tally: Tally) -> AsyncGenerator[None]:
    """Keep eight workers busy inside the block, each with a case whose undisturbed text is known."""
    expected = [(await run(client, case))[0] for case in CASES]
    over = asyncio.Event()
    workers = [
        asyncio.create_task(work(client, case, text, tally, over)) for case, text in zip(CASES, expected, strict=True)
    ]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*workers)


async def test_a_hundred_dead_engines_change_nothing(tmp_path: Path) -> None:
    """Engines killed at random moments: every text is the undisturbed one, gap-free, and no client sees an error."""
    chance = random.Random(1)  # moments, not secrets
    tally = Tally()
    async with started(settings_for(tmp_path, engine_restart_backoff_s=0.1)) as up:
        async with AsyncClient(f"127.0.0.1:{up.service.port}") as client, load(client, tally):
            for _ in range(ENGINE_KILLS):
                await eventually(up.is_serving, within_s=60.0)
                await asyncio.sleep(chance.uniform(0.3, 2.0))
                kill_engine(up)
        assert tally.faults == []
        assert tally.continued >= WORKERS
        await eventually(lambda: up.held == (0, 0, 0, 0))
        report(f"{ENGINE_KILLS} engines killed: {tally.done} analyses, {tally.continued} of them continued")


async def test_twenty_dead_servers_change_nothing(tmp_path: Path) -> None:
    """Servers killed at random moments and started again: the same, by the clients' own resume."""
    chance = random.Random(2)  # moments, not secrets
    tally = Tally()
    address = f"127.0.0.1:{free_port()}"
    server = await start_server(tmp_path, address)
    try:
        async with AsyncClient(address) as client:
            await client.wait_until_ready(timeout=60)
            async with load(client, tally):
                for _ in range(SERVER_KILLS):
                    await asyncio.sleep(chance.uniform(1.0, 4.0))
                    server.kill()
                    await server.wait()
                    server = await start_server(tmp_path, address)
                    await client.wait_until_ready(timeout=60)
        assert tally.faults == []
        assert tally.continued >= WORKERS
        report(f"{SERVER_KILLS} servers killed: {tally.done} analyses, {tally.continued} of them continued")
    finally:
        server.send_signal(signal.SIGTERM)
        await server.wait()


def kill_engine(up: Running) -> None:
    """Kill the engine, whatever it is doing."""
    pid = up.service.engine.pid
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def start_server(folder: Path, address: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start a server whose log goes on in a folder's file."""
    with (folder / "stderr").open("ab") as errors:
        return await asyncio.create_subprocess_exec(
            *(*SERVE, "--data-dir", "data", "--grpc-address", address, "--http-address", "", *arguments),
            cwd=folder,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors,
        )


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def report(line: str) -> None:
    """Write a line of figures, which `make soak` shows."""
    print(line)  # noqa: T201  # it is what the soak is run for
