"""A flood: one caller's thousand requests at once cost another no more than a step of the engine and its share."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from mondrian.v1 import analysis_pb2 as pb
from mondrian_server.callers import CallerLimits
from mondrian_server.callers.editing import add_key
from mondrian_server.engine.supervisor import ENGINE_COMMAND
from tests import scripted_engine
from tests.conditions import eventually
from tests.service.calls import Call, Connection, Outcome, Running, settings_for, started

FLOOD = 1000
WAITING = 64
STEPS = 20
"""How many steps another's first token may take: two, and the time that a busy machine takes to hand it over."""
FOR_HOURS = 1_000_000


@asynccontextmanager
async def house(
    folder: Path, *, engine_command: tuple[str, ...] = ENGINE_COMMAND, **settings: Any
) -> AsyncGenerator[tuple[Running, Connection, Connection]]:
    """Run a service for two callers, and give it with both."""
    path = folder / "keys.toml"
    keys = [add_key(path, name, CallerLimits()).text for name in ("bob", "carol")]
    changed = settings_for(folder / "data", keys_file=path, max_waiting_analyses=WAITING, **settings)
    async with started(changed, engine_command=engine_command) as up:
        yield up, up.by(keys[0]), up.by(keys[1])


def asking(tokens: int) -> pb.AnalysisConfig:
    """Return a request for so many tokens, each sent as it comes."""
    config = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=tokens, min_tokens=tokens))
    config.delivery.token_interval.FromMilliseconds(0)
    return config


async def flood(by: Connection, config: pb.AnalysisConfig, *, slots: int) -> list[Call]:
    """Ask a thousand times at once, and return what was taken on when all the rest has been refused."""
    calls = [by.call(config) for _ in range(FLOOD)]
    await eventually(lambda: all(call.ended or call.sequence for call in calls), within_s=60)
    refused = [await call.outcome() for call in calls if not call.sequence]
    assert {(outcome.code, outcome.reason) for outcome in refused} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ANALYSES")
    }
    assert all(outcome.retry_after_s > 0 for outcome in refused)
    taken = [call for call in calls if call.sequence]
    assert len(taken) >= slots + WAITING // 2
    return taken


def generating(calls: Sequence[Call]) -> list[Call]:
    """Return those that have a token."""
    return [call for call in calls if any(event.HasField("token") for event in call.seen.events)]


def made_way(call: Call) -> bool:
    """Return whether an analysis was interrupted for another's sake."""
    return any(event.progress.continuations for event in call.seen.events)


def steps_waited(outcome: Outcome, witness: Outcome) -> int:
    """Return how many steps the engine made between the acceptance of an analysis and its first token.

    A witness that runs all the time has one token for each step.
    """
    accepted = outcome.events[0].create_time.ToNanoseconds()
    first = next(event for event in outcome.events if event.HasField("token")).create_time.ToNanoseconds()
    times = [event.create_time.ToNanoseconds() for event in witness.events if event.HasField("token")]
    return sum(accepted < time < first for time in times)


async def test_a_flood_leaves_another_its_share_of_the_slots(tmp_path: Path) -> None:
    """With every slot taken for hours, another's analyses start within steps, up to half of the slots; the rest wait.

    The engine is scripted, so that nothing of the flood can end in the meantime.
    """
    life = scripted_engine.Life(step_s=0.05, tokens=FOR_HOURS, context_tokens=2 * FOR_HOURS)
    command = scripted_engine.command([life], tmp_path / "starts")
    async with house(tmp_path, engine_command=command, slots=8, lookahead=4) as (up, bob, carol):
        taken = await flood(bob, asking(FOR_HOURS), slots=8)
        await eventually(lambda: len(generating(taken)) == 8)
        hers = [carol.call(asking(FOR_HOURS)) for _ in range(6)]
        await eventually(lambda: len(generating(hers)) == 4)
        await eventually(lambda: sum(map(made_way, taken)) == 4)
        assert not any(call.ended for call in taken)
        witness = next(call for call in generating(taken) if not made_way(call))
        assert all(steps_waited(call.seen, witness.seen) <= STEPS for call in generating(hers))
        assert up.service.scheduler.running == 8
        for call in generating(hers):
            call.cancel()
        await eventually(lambda: len(generating(hers)) == 6)
        for call in (*taken, *hers):
            call.cancel()


async def test_whoever_makes_way_loses_nothing(tmp_path: Path) -> None:
    """On the real engine, one that gave its slot to another's analysis ends with the text that it gives alone."""
    async with house(tmp_path, slots=2, lookahead=1) as (_, bob, carol):
        config = asking(600)
        alone = await bob.ask(config)
        taken = await flood(bob, config, slots=2)
        assert (await carol.ask(asking(8))).completed
        await eventually(lambda: any(map(made_way, taken)))
        interrupted = [call for call in taken if made_way(call)]
        for call in taken:
            if call not in interrupted:
                call.cancel()
        for outcome in await asyncio.gather(*(call.outcome() for call in interrupted)):
            assert outcome.completed.text == outcome.text == alone.text
            assert [event.sequence for event in outcome.events] == list(range(1, len(outcome.events) + 1))


async def test_a_flood_of_images_leaves_another_its_turn(tmp_path: Path, picture: bytes) -> None:
    """With pictures to decode and to encode for all, another's is complete while most of the flood waits."""
    async with house(tmp_path, slots=4, lookahead=2) as (_, bob, carol):
        config = pb.AnalysisConfig(prompt="What is this?", images=[pb.Image(data=picture)])
        config.sampling.CopyFrom(pb.Sampling(max_tokens=200, min_tokens=200))
        taken = await flood(bob, config, slots=4)
        config.sampling.CopyFrom(pb.Sampling(max_tokens=4))
        assert (await carol.ask(config)).completed
        assert len(generating(taken)) < len(taken) // 2
        for call in taken:
            call.cancel()
