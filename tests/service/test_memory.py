"""Memory: what waits is held by the log, however much it is and however much more it unfolds to."""

from collections.abc import Callable
from pathlib import Path

import grpc
import psutil
import pytest

from mondrian.v1 import analysis_pb2 as pb
from tests.service.calls import Call, Connection
from tests.service.files import png
from tests.service.programs import program

MEBIBYTE = 1024 * 1024
LONG = pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(max_tokens=3_900, min_tokens=3_900))
WAITING = 40
MOST_GROWTH_BYTES = 110 * MEBIBYTE


def large_files() -> list[bytes]:
    """Return 4 MiB of image files: 160 MiB for all who wait."""
    return [png(8, 8, size_bytes=4 * MEBIBYTE)]


def small_files_of_large_pictures() -> list[bytes]:
    """Return eight files of some kilobytes that are 24 MiB of pixels: 960 MiB for all who wait."""
    return [png(1024, 1024)] * 8


@pytest.mark.parametrize("files", [large_files, small_files_of_large_pictures])
async def test_waiting_analyses_hold_no_images_in_memory(tmp_path: Path, files: Callable[[], list[bytes]]) -> None:
    """Forty analyses that wait, each with its stream open, make the server hardly larger."""
    config = pb.AnalysisConfig(images=[pb.Image(data=data) for data in files()])
    async with program(tmp_path, "--slots", "1", "--lookahead", "0") as server:
        # The generator's own channel has the default limit for what it sends.
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
            connection = Connection(channel=channel)
            running = [connection.call(LONG)]
            await running[0].until_token()
            running += [connection.call(LONG) for _ in range(7)]
            for call in running[1:]:
                await call.until_stage(pb.STAGE_QUEUED)
            process = psutil.Process(server.process.pid)
            before = process.memory_info().rss
            waiting: list[Call] = []
            for _ in range(WAITING):
                waiting.append(connection.call(config))
                await waiting[-1].until_stage(pb.STAGE_QUEUED, within_s=60)
            assert process.memory_info().rss - before < MOST_GROWTH_BYTES
            assert not any(call.ended for call in waiting)
            await _end([*running, *waiting])


async def _end(calls: list[Call]) -> None:
    for call in calls:
        call.cancel()
    for call in calls:
        await call.outcome()
