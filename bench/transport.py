"""Transport alone: a scripted engine in place of the model, many streams and watchers, with and without the log."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import msgspec

from bench.contenders import GRPC, Contender, Measured
from bench.figures import Figures, stream_figures
from bench.material import write_endless
from bench.usage import Usage
from bench.workloads import Setting
from tests.scripted_engine.program import Life

NO_LOG = "Mondrian gRPC, no log"

TRANSPORT: dict[str, tuple[str, str]] = {
    "transport-streams": (
        "Transport alone: 256 streams at 5,000 tokens/s",
        "A scripted engine tells 256 rows a token each every 51 ms; each token is one event (`token_interval = 0`).",
    ),
    "transport-watchers": (
        "Transport alone: 1,000 watchers of 10 analyses",
        "A scripted engine tells more than the server can pass on. The client, which counts messages without parsing "
        "them, has the other core. The memory of a watcher is what the server's process grows by when it comes.",
    ),
    "durability": (
        "Durability: the log against none",
        "The real engine, 32 image analyses at once, each step sent; without the log, events are seen at once and kept "
        "nowhere.",
    ),
}


def measure_transport(name: str, folder: Path, *, quick: bool) -> dict[str, Figures]:
    """Run one of the workloads and return its figures by contender."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        match name:
            case "transport-streams":
                return {GRPC: _streams(Path(own), quick=quick)}
            case "transport-watchers":
                return {GRPC: _watchers(Path(own), quick=quick)}
            case _:
                return _durability(Path(own), quick=quick)


def _streams(folder: Path, *, quick: bool) -> Figures:
    streams, rate, tokens = 256, 5000, 20 if quick else 200
    life = Life(step_s=streams / rate, tokens=tokens, context_tokens=100_000)
    with _scripted(folder, life, streams) as (process, address), Usage(process.pid) as usage:
        seen = _watch(address, streams, 0, tokens)
    return {
        "tokens/s offered": rate,
        "events/s": seen["events"] / seen["took_s"],
        "CPU s/s": usage.cpu_s / seen["took_s"],
        "errors": seen["errors"],
    }


def _watchers(folder: Path, *, quick: bool) -> Figures:
    analyses, watchers, tokens = 10, 50 if quick else 1000, 20 if quick else 400
    quiet_s = 2.0 if quick else 20.0
    life = Life(step_s=0.002, tokens=tokens, prepare_s=quiet_s, context_tokens=100_000)
    with _scripted(folder, life, analyses) as (process, address):
        # A few come first, so that what the first watcher ever needs is not counted as a watcher's.
        empty = _memory(process.pid)
        with _watching(address, analyses, watchers, tokens) as client:
            full = _memory(process.pid)
            with Usage(process.pid) as usage:
                seen = _seen(client)
    return {
        "events/s": seen["events"] / seen["took_s"],
        "kB/watcher": (full - empty) / watchers / 1e3,
        "CPU s/s": usage.cpu_s / seen["took_s"],
        "events": seen["events"],
        "errors": seen["errors"],
    }


def _durability(folder: Path, *, quick: bool) -> dict[str, Figures]:
    model = str(write_endless(folder / "model"))
    count, tokens = (4, 8) if quick else (32, 100)
    figures: dict[str, Figures] = {}
    for name, log in ((NO_LOG, "none"), (GRPC, "log")):
        own = folder / log
        own.mkdir()
        setting = Setting(folder=own, tokens=tokens, long_prompt="", quick=quick)
        with _server(own, "", 32, log, model) as (process, address):
            contender = Contender(
                name=name, process=process, protocol="grpc", folder=own, address=address, token_interval_s=0.0
            )
            _until_ready(contender, setting)
            measured: Measured = contender.measure(setting.requests(count, 1))
        streams = stream_figures(measured)
        figures[name] = {"tokens/s": streams["tokens/s"], "CPU s/1000": streams["CPU s/1000"]}
    figures[GRPC]["log/no log"] = figures[GRPC]["tokens/s"] / figures[NO_LOG]["tokens/s"]
    figures[GRPC]["CPU, log/no log"] = figures[GRPC]["CPU s/1000"] / figures[NO_LOG]["CPU s/1000"]
    return figures


def _until_ready(contender: Contender, setting: Setting) -> None:
    """Warm up; the first calls wait until the model is loaded."""
    contender.measure(setting.requests(2, 900))


@contextlib.contextmanager
def _scripted(folder: Path, life: Life, slots: int) -> "Generator[tuple[subprocess.Popen[str], str]]":
    with _server(folder, msgspec.json.encode(life).decode(), slots, "log") as server:
        time.sleep(1.0)  # The scripted engine is ready in a tenth of it.
        yield server


@contextlib.contextmanager
def _server(
    folder: Path, life: str, slots: int, log: str, model: str = ""
) -> "Generator[tuple[subprocess.Popen[str], str]]":
    arguments = ("-m", "bench.scripted", str(folder), life, str(slots), log, model)
    process = subprocess.Popen((sys.executable, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("port ")), "port 0")
        yield process, f"127.0.0.1:{int(line.split()[1])}"
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def _watch(address: str, analyses: int, watchers: int, tokens: int) -> dict[str, float]:
    with _watching(address, analyses, watchers, tokens) as client:
        return _seen(client)


@contextlib.contextmanager
def _watching(address: str, *numbers: int) -> "Generator[subprocess.Popen[str]]":
    """Run the watchers, and go on as soon as all of them watch."""
    command = (sys.executable, "-m", "bench.watchers", address, *map(str, numbers))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if (line := _line(process)) != "watching\n":
            raise RuntimeError(f"the watchers said {line!r} before they watched")
        yield process
        process.wait(600)
    finally:
        process.kill()
        process.wait()


def _seen(client: "subprocess.Popen[str]") -> dict[str, float]:
    return msgspec.json.decode(_line(client))


def _line(client: "subprocess.Popen[str]") -> str:
    """Return the next line of the watchers, who say `watching` and then, in JSON, what they saw."""
    assert client.stdout is not None
    if not (line := client.stdout.readline()):
        raise RuntimeError("the watchers ended")
    return line


def _memory(pid: int) -> int:
    """Return the resident bytes of one process."""
    path = Path(f"/proc/{pid}/statm")
    if path.exists():
        return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import psutil  # noqa: PLC0415 # where there is no /proc

    return psutil.Process(pid).memory_info().rss
