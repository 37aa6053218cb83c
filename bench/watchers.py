"""Watchers: follows analyses of a scripted server by many calls, and counts what comes. A process of its own.

Run by the harness: `python -m bench.watchers ADDRESS ANALYSES WATCHERS TOKENS`. It creates the analyses, watches each
by its share of the watchers, says `watching` when every watcher has its first event, and then what came, as JSON.
Frames are counted and nothing is parsed: a gRPC client in Python takes a whole core for some 10,000 messages a second,
and what it could not read would be held against the server.
"""

import sys
import time
from typing import Any

import grpc
import msgspec

from bench.frames import Connection, arrivals
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian.v1 import analysis_service_pb2_grpc as service

_CONNECTIONS = 8
_SILENCE_S = 1.0
_OPENING_EVENTS = 8
"""The clock starts with the first event after the silence in which the engine prepares; before it, each watcher has
seen a few events of the queue."""

_WATCH = "/mondrian.v1.AnalysisService/WatchAnalysis"
_ANALYZE = "/mondrian.v1.AnalysisService/Analyze"


def watch(address: str, analyses: int, watchers: int, tokens: int) -> dict[str, float]:
    """Run the watchers and return what they saw; `watchers` 0: each analysis is followed by the call that made it."""
    if watchers:
        names = _create(address, analyses, tokens)
        path, requests = _WATCH, [service_pb.WatchAnalysisRequest(name=names[n % analyses]) for n in range(watchers)]
    else:
        path, requests = _ANALYZE, [service_pb.AnalyzeRequest(config=_config(tokens)) for _ in range(analyses)]
    connections = [Connection(address) for _ in range(_CONNECTIONS)]
    streams = [
        connections[number % _CONNECTIONS].call(path, request.SerializeToString())
        for number, request in enumerate(requests)
    ]
    before, began, looked = 0, 0.0, time.perf_counter()
    watching, total = False, 0
    for _ in arrivals(connections):
        if watching and total > _OPENING_EVENTS * len(streams):
            continue
        now = time.perf_counter()
        if watching and now - looked > _SILENCE_S:
            before, began = total, now
        looked, total = now, sum(stream.messages for stream in streams)
        if not watching and all(stream.messages or stream.ended for stream in streams):
            watching, before, began = True, total, now
            print("watching", flush=True)
    took_s = time.perf_counter() - began
    for connection in connections:
        connection.line.close()
    return {
        "events": sum(stream.messages for stream in streams) - before,
        "bytes": sum(stream.size for stream in streams),
        # All analyses are alike to within a few events of progress; a call that was refused or cut has none or some.
        "errors": sum(not stream.ok or stream.messages < tokens for stream in streams),
        "took_s": took_s,
        "cpu_s": time.process_time(),
    }


def _create(address: str, analyses: int, tokens: int) -> list[str]:
    with grpc.insecure_channel(address) as channel:
        stub: Any = service.AnalysisServiceStub(channel)
        requests = [service_pb.CreateAnalysisRequest(config=_config(tokens)) for _ in range(analyses)]
        return [stub.CreateAnalysis(request).analysis.name for request in requests]


def _config(tokens: int) -> pb.AnalysisConfig:
    config = pb.AnalysisConfig(prompt="scripted", sampling=pb.Sampling(max_tokens=tokens))
    config.delivery.token_interval.FromNanoseconds(0)
    config.delivery.progress_interval.FromSeconds(60)
    return config


def main(address: str, analyses: str, watchers: str, tokens: str) -> None:
    """Watch what the arguments say."""
    print(msgspec.json.encode(watch(address, int(analyses), int(watchers), int(tokens))).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
