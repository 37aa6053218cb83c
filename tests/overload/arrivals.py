"""Arrivals: a program that makes calls to a server at a set rate, whatever becomes of them, and tells how each ended.

Open loop: a call is made when its time has come, not when another one has ended. Times are taken in this process, from
just before the call is handed to gRPC to the callback with its status, so that they hold this process's own delays too.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.overload.photos import photo

ANALYZE = "/mondrian.v1.AnalysisService/Analyze"
CHANNELS = 4


@dataclass(slots=True, kw_only=True)
class Report:
    """What became of the calls.

    ended: accepted analyses whose terminal event came, by its kind.
    refused_s: how long each refusal took, by its reason.
    odd: everything else, which should be nothing.
    latest_s: by how much this program was late with a call at most.
    """

    made: int = 0
    ended: dict[str, int] = field(default_factory=dict[str, int])
    refused_s: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    odd: list[str] = field(default_factory=list[str])
    latest_s: float = 0.0


async def one_call(call: Any, report: Report) -> None:
    """Read a call to its end and note it."""
    began_s = time.monotonic()
    accepted, terminal = False, ""
    try:
        async for data in call:
            event = service_pb.AnalyzeResponse.FromString(data).event
            accepted = True
            terminal = event.WhichOneof("payload") or ""
    except grpc.aio.AioRpcError as error:
        took_s = time.monotonic() - began_s
        if not accepted:
            reason = _reason(error)
            if reason:
                report.refused_s.setdefault(reason, []).append(took_s)
            else:
                report.odd.append(f"{error.code().name}: {error.details()}")
            return
        terminal = terminal if terminal in ("failed", "cancelled") else f"cut off: {error.details()}"
    report.ended[terminal] = report.ended.get(terminal, 0) + 1


def _reason(error: grpc.aio.AioRpcError) -> str:
    status: Status | None = vars(rpc_status)["from_call"](error)  # grpcio-status carries no types
    info = ErrorInfo()
    return info.reason if status is not None and any(each.Unpack(info) for each in status.details) else ""


async def arrive(port: int, rate: float, seconds: float) -> Report:
    """Make calls for so many seconds and wait for the end of each."""
    config = pb.AnalysisConfig(
        prompt="Describe this image.",
        images=[pb.Image(data=photo())],
        sampling=pb.Sampling(max_tokens=24, min_tokens=24),
    )
    data = service_pb.AnalyzeRequest(config=config).SerializeToString()
    report = Report()
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(CHANNELS)
    ]
    try:
        methods: list[Any] = [channel.unary_stream(ANALYZE) for channel in channels]
        calls: set[asyncio.Task[None]] = set()
        start_s = time.monotonic()
        while (due_s := report.made / rate) < seconds:
            late_s = time.monotonic() - start_s - due_s
            if late_s < 0:
                await asyncio.sleep(-late_s)
                continue
            report.latest_s = max(report.latest_s, late_s)
            task = asyncio.create_task(one_call(methods[report.made % CHANNELS](data), report))
            calls.add(task)
            task.add_done_callback(calls.discard)
            report.made += 1
            await asyncio.sleep(0)
        await asyncio.gather(*calls)
    finally:
        for channel in channels:
            await channel.close()
    return report


if __name__ == "__main__":
    outcome = asyncio.run(arrive(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
    json.dump(asdict(outcome), sys.stdout)
