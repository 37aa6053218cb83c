"""Progress: stages in order, fractions that never fall, and a heartbeat that does not need the engine."""

import io
import itertools
import os
import signal
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from PIL import Image

from mondrian.v1 import analysis_pb2 as pb
from tests.conditions import eventually
from tests.service.calls import Running, settings_for, started

INTERVAL_S = 0.2
SLACK_S = 0.3
"""How late a heartbeat may come on a busy machine."""

FAST = pb.Delivery(progress_interval=Duration(nanos=int(INTERVAL_S * 1e9)))


async def test_stages_come_in_order_and_fractions_never_fall(up: Running, picture: bytes) -> None:
    """A picture's analysis goes through the stages in their order, from 0 to 1."""
    config = pb.AnalysisConfig(
        prompt="Describe this image.",
        images=[pb.Image(data=picture)],
        sampling=pb.Sampling(max_tokens=60),
        delivery=FAST,
    )
    outcome = await up.ask(config)
    progress = [event.progress for event in outcome.events if event.HasField("progress")]
    stages = outcome.stages
    assert stages == sorted(stages)
    assert stages[0] == pb.STAGE_QUEUED
    assert {pb.STAGE_PREFILL, pb.STAGE_GENERATING, pb.STAGE_FINALIZING} <= set(stages)
    fractions = [one.fraction for one in progress]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert [event.sequence for event in outcome.events] == list(range(1, len(outcome.events) + 1))


async def test_a_new_picture_is_prepared_and_encoded(up: Running) -> None:
    """A picture that the engine has never seen shows the stages of preparing and encoding."""
    picture = b"P6 40 30 255 " + os.urandom(40 * 30 * 3)
    outcome = await up.ask(_of_new_picture(picture))
    assert {pb.STAGE_PREPARING, pb.STAGE_ENCODING} <= set(outcome.stages)
    assert outcome.completed.usage.image_tokens > 0
    assert outcome.completed.timings.encode.ToNanoseconds() > 0


def _of_new_picture(netpbm: bytes) -> pb.AnalysisConfig:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(netpbm)).save(buffer, "PNG")
    return pb.AnalysisConfig(
        prompt="Look.", images=[pb.Image(data=buffer.getvalue())], sampling=pb.Sampling(max_tokens=3)
    )


async def test_generating_counts_tokens_and_estimates_the_rest(up: Running) -> None:
    """Heartbeats while generating carry counts, a rate, the time left, and a sentence for people."""
    config = pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=600, min_tokens=600), delivery=FAST)
    outcome = await up.ask(config)
    beats = [
        event.progress
        for event in outcome.events
        if event.progress.stage == pb.STAGE_GENERATING and event.progress.output_tokens > 1
    ]
    assert beats, "600 tokens take longer than one interval"
    counts = [beat.output_tokens for beat in beats]
    assert counts == sorted(counts)
    for beat in beats:
        assert beat.max_output_tokens == 600
        assert beat.output_tokens_per_s > 0
        assert beat.estimated_time_left.ToNanoseconds() > 0
        assert beat.message.startswith(f"Generating analysis... ({beat.output_tokens} tokens, ")


async def test_the_queue_has_live_positions(tmp_path: Path) -> None:
    """Waiting analyses are told their position, and that it changes as others go."""
    async with started(settings_for(tmp_path, slots=1, lookahead=0)) as up:
        running = up.call(pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=1500, min_tokens=1500)))
        await running.until_token()
        short = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=2), delivery=FAST)
        second, third = up.call(short), None
        await second.until(lambda event: event.accepted.queue_position == 1)
        third = up.call(short)
        await third.until(lambda event: event.accepted.queue_position == 2)
        await third.until(lambda event: event.progress.message == "Waiting in the queue (position 2)...")
        second.cancel()
        await third.until(lambda event: event.progress.queue_position == 1)
        running.cancel()
        assert (await third.outcome()).code is grpc.StatusCode.OK


@pytest.mark.alone
async def test_the_heartbeat_goes_on_while_the_engine_is_stopped(tmp_path: Path) -> None:
    """With the engine stopped the heartbeat keeps its interval; then health turns, and a new engine serves."""
    async with started(settings_for(tmp_path, engine_beat_timeout_s=2.0)) as up:
        config = pb.AnalysisConfig(
            prompt="Go on.", sampling=pb.Sampling(max_tokens=1800, min_tokens=1800), delivery=FAST
        )
        call = up.call(config)
        await call.until_token()
        first_pid = up.service.engine.pid
        assert first_pid is not None
        os.kill(first_pid, signal.SIGSTOP)
        await eventually(lambda: _is_down(up), within_s=2.0 + 2.0)
        await call.until(lambda event: event.progress.continuations == 1)
        await eventually(up.is_serving, within_s=20.0)
        assert up.service.engine.pid != first_pid
        outcome = await call.outcome()
        assert outcome.code is grpc.StatusCode.OK
        beats = [
            time_s for event, time_s in zip(outcome.events, outcome.times_s, strict=True) if event.HasField("progress")
        ]
        gaps = [later - earlier for earlier, later in itertools.pairwise(beats)]
        assert len(beats) > 2.0 / INTERVAL_S
        assert max(gaps) < INTERVAL_S + SLACK_S
        again = await up.ask(pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3)))
        assert again.code is grpc.StatusCode.OK


async def _is_down(up: Running) -> bool:
    return not await up.is_serving()
