"""Contenders: what is measured, each started here on the same checkpoint, warmed up, and ended."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.plan import Plan, Request, Run, When
from bench.usage import Usage

_START_S = 180.0
_STOP_S = 30.0

BARE_ONE, BARE_EIGHT, PEER = "bare, one by one", "bare, in eights", "mlx_vlm.server"
BARE_SPED_UP = "bare, one by one, our linear layers"
GRPC, GRPC_EACH, SSE = "Mondrian gRPC", "Mondrian gRPC, interval 0", "Mondrian SSE"
NAMES = (BARE_ONE, BARE_EIGHT, BARE_SPED_UP, PEER, GRPC, GRPC_EACH, SSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run came to."""

    run: Run
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A contender that runs: how to ask it, and its process."""

    name: str
    process: "subprocess.Popen[str]"
    protocol: str
    folder: Path
    address: str = ""
    model: str = ""
    token_interval_s: float | None = None
    prefill_rows: int = 1
    sped_up: bool = False

    @property
    def salt(self) -> int:
        """What keeps its pictures apart from those of contenders that share its server, and so its caches."""
        return 10_000 * {GRPC_EACH: 1, SSE: 2}.get(self.name, 0)

    def measure(
        self, requests: Sequence[Request], *, kill: int = 0, kill_when: When | None = None, limit_s: float = 900.0
    ) -> Measured:
        """Ask all of this and return what came of it; `kill` is a process that dies meanwhile."""
        plan = Plan(
            protocol=self.protocol,
            requests=tuple(requests),
            address=self.address,
            model=self.model,
            token_interval_s=self.token_interval_s,
            prefill_rows=self.prefill_rows,
            sped_up=self.sped_up,
            kill=kill,
            kill_when=kill_when,
        )
        plan_file, run_file = self.folder / "plan.json", self.folder / "run.json"
        plan_file.write_bytes(msgspec.json.encode(plan))
        with Usage(self.process.pid) as usage:
            if self.protocol == "bare":
                assert self.process.stdin is not None and self.process.stdout is not None
                self.process.stdin.write(f"{plan_file} {run_file}\n")
                self.process.stdin.flush()
                if self.process.stdout.readline() != "done\n":
                    raise RuntimeError("the bare generator ended")
            else:
                client = (sys.executable, "-m", "bench.client", str(plan_file), str(run_file))
                subprocess.run(client, check=True, timeout=limit_s)
        run = msgspec.json.decode(run_file.read_bytes(), type=Run)
        failed = [seen.error for seen in run.seen if seen.error]
        if failed:
            print(f"    {self.name}: {len(failed)} of {len(run.seen)} failed: {failed[0]}", flush=True)
        return Measured(run=run, cpu_s=usage.cpu_s, peak_bytes=usage.peak_bytes)


@contextlib.contextmanager
def started(
    names: Sequence[str], model: str, folder: Path, *, extra: Sequence[str] = ()
) -> Generator[dict[str, Contender]]:
    """Run those contenders beside each other; all but the one that is asked stand idle. `extra`: Mondrian's flags."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Contender] = {}
        if {BARE_ONE, BARE_EIGHT, BARE_SPED_UP} & set(names):
            bare = stack.enter_context(_bare(model, folder))
            running |= {n: c for n, c in bare.items() if n in names}
        if PEER in names:
            running[PEER] = stack.enter_context(_peer(model, folder))
        if {GRPC, GRPC_EACH, SSE} & set(names):
            mondrian = stack.enter_context(_mondrian(model, folder, http=SSE in names, extra=extra))
            running |= {n: c for n, c in mondrian.items() if n in names}
        yield {name: running[name] for name in names}


@contextlib.contextmanager
def _bare(model: str, folder: Path) -> Generator[dict[str, Contender]]:
    program = ("-m", "bench.bare", model)
    # One thread for numpy, as in the engine.
    with _program(program, folder, "bare", answers=True, OPENBLAS_NUM_THREADS="1") as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the bare generator did not start")
        yield {
            name: Contender(
                name=name, process=process, protocol="bare", folder=folder, prefill_rows=rows, sped_up=sped_up
            )
            for name, rows, sped_up in ((BARE_ONE, 1, False), (BARE_EIGHT, 8, False), (BARE_SPED_UP, 1, True))
        }


@contextlib.contextmanager
def _peer(model: str, folder: Path) -> Generator[Contender]:
    port = _free_port()
    address = f"127.0.0.1:{port}"
    arguments = ("--model", model, "--host", "127.0.0.1", "--port", str(port), "--log-level", "ERROR")
    with _program(("-m", "mlx_vlm.server", *arguments), folder, "mlx_vlm.server") as process:
        _until(process, lambda: _answers(f"http://{address}/health"))
        yield Contender(name=PEER, process=process, protocol="openai", folder=folder, address=address, model=model)


@contextlib.contextmanager
def _mondrian(model: str, folder: Path, *, http: bool, extra: Sequence[str]) -> Generator[dict[str, Contender]]:
    ports = _free_port(), _free_port()
    grpc_address, http_address = (f"127.0.0.1:{port}" for port in ports)
    arguments = ["--grpc-address", grpc_address, "--http-address", http_address if http else ""]
    arguments += ["--model", model, "--data-dir", str(folder / "data"), *extra]
    with _program(
        ("-m", "mondrian_server", "serve", "--log-level", "error", *arguments), folder, "mondrian"
    ) as process:
        _until(process, lambda: _serves(grpc_address))
        if http:
            _until(process, lambda: _answers(f"http://{http_address}/healthz"))
        yield {
            GRPC: _ours(GRPC, process, folder, "grpc", grpc_address),
            GRPC_EACH: _ours(GRPC_EACH, process, folder, "grpc", grpc_address, token_interval_s=0.0),
            SSE: _ours(SSE, process, folder, "gateway", http_address),
        }


def _ours(
    name: str,
    process: "subprocess.Popen[str]",
    folder: Path,
    protocol: str,
    address: str,
    token_interval_s: float | None = None,
) -> Contender:
    return Contender(
        name=name,
        process=process,
        protocol=protocol,
        folder=folder,
        address=address,
        token_interval_s=token_interval_s,
    )


@contextlib.contextmanager
def _program(
    arguments: Sequence[str], folder: Path, name: str, *, answers: bool = False, **environment: str
) -> "Generator[subprocess.Popen[str]]":
    """Run a program with those variables in its environment, and see it end.

    What it writes goes to a file, but for the answers of one that is read: a program stands still when it has written
    64 KiB to a pipe that nobody reads.
    """
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            (sys.executable, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if answers else log,
            stderr=log,
            text=True,
            env=os.environ | quiet | environment,
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"a contender did not start: {process.args}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 # our own loopback address
            return answer.status < 500
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def _serves(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
