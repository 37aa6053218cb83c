"""Watchers: follows analyses of a scripted server by many calls, and counts what comes. A process of its own.

Run by the harness: `python -m bench.watchers ADDRESS ANALYSES WATCHERS TOKENS`. It creates the analyses, watches each
by its share of the watchers, says `watching` when every watcher has its first event, and then what came, as JSON.
Messages are counted as bytes: parsing them is the clients' affair, and would only take the server's core away.
"""

import asyncio
import sys
import time
from typing import Any

import grpc.aio
import msgspec

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian.v1 import analysis_service_pb2_grpc as service

_CHANNELS = 8
_WATCH = "/mondrian.v1.AnalysisService/WatchAnalysis"
_ANALYZE = "/mondrian.v1.AnalysisService/Analyze"


class Counter:
    """What all watchers together have seen."""

    def __init__(self, watchers: int):
        """Begin without any."""
        self.events = 0
        self.bytes = 0
        self.errors = 0
        self._missing = watchers
        self.all_watch = asyncio.Event()
        self.first_s = 0.0

    def began(self) -> None:
        """Note that a watcher has its first event."""
        self._missing -= 1
        if not self._missing:
            self.all_watch.set()


async def _follow(call: Any, counter: Counter) -> None:
    watching = False
    try:
        async for data in call:
            counter.events += 1
            counter.bytes += len(data)
            if not watching:
                watching = True
                counter.began()
    except grpc.aio.AioRpcError as error:
        counter.errors += 1
        if counter.errors == 1:
            print(f"watchers: {error}", file=sys.stderr, flush=True)
        if not watching:
            counter.began()
    finally:
        call.cancel()


def _config(tokens: int) -> pb.AnalysisConfig:
    config = pb.AnalysisConfig(prompt="scripted", sampling=pb.Sampling(max_tokens=tokens))
    config.delivery.token_interval.FromNanoseconds(0)
    config.delivery.progress_interval.FromSeconds(60)
    return config


async def watch(address: str, analyses: int, watchers: int, tokens: int) -> None:
    """Run the watchers; `watchers` 0: each analysis is followed by the call that made it."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(_CHANNELS)]
    stub: Any = service.AnalysisServiceStub(channels[0])
    counter = Counter(watchers or analyses)
    calls: list[Any] = []
    if watchers:
        names = [
            (await stub.CreateAnalysis(service_pb.CreateAnalysisRequest(config=_config(tokens)))).analysis.name
            for _ in range(analyses)
        ]
        requests = [service_pb.WatchAnalysisRequest(name=names[n % analyses]) for n in range(watchers)]
        method = _WATCH
    else:
        requests = [service_pb.AnalyzeRequest(config=_config(tokens)) for _ in range(analyses)]
        method = _ANALYZE
    for number, request in enumerate(requests):
        open_call = channels[number % _CHANNELS].unary_stream(
            method, request_serializer=type(request).SerializeToString, response_deserializer=None
        )
        calls.append(open_call(request))
    work = [asyncio.create_task(_follow(call, counter)) for call in calls]
    await counter.all_watch.wait()
    print("watching", flush=True)
    before, began = counter.events, time.perf_counter()
    while counter.events == before:
        await asyncio.sleep(0.001)
        began = time.perf_counter()
    await asyncio.gather(*work)
    took_s = time.perf_counter() - began
    seen = {"events": counter.events - before, "bytes": counter.bytes, "errors": counter.errors, "took_s": took_s}
    print(msgspec.json.encode(seen).decode(), flush=True)
    for channel in channels:
        await channel.close()


def main(address: str, analyses: str, watchers: str, tokens: str) -> None:
    """Watch what the arguments say."""
    asyncio.run(watch(address, int(analyses), int(watchers), int(tokens)))


if __name__ == "__main__":
    main(*sys.argv[1:])
