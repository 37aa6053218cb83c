"""Compares the engine process with a bare mlx-vlm BatchGenerator: tokens per second at 1, 8 and 32 rows.

Both run the same model in the same precision, in turns, so that other load on the machine falls on both alike. What
counts is the ratio of each pair of runs. Run: `.venv/bin/python bench/engine_vs_bare.py [MODEL] [--rounds N]`.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil

from mondrian_server.child import CHANNEL_VARIABLE
from mondrian_server.engine.process.mlx_typed import change_parameters, evaluate, member, parameters
from mondrian_server.engine.protocol import (
    Configure,
    EngineConfig,
    FromEngine,
    LoadFailed,
    Ready,
    RowDone,
    RowFailed,
    RowSampling,
    RowTokens,
    Step,
    Submit,
)
from mondrian_server.framing import BlockingChannel

TOKENS = 100
PROMPT = "Which colours are in the picture, and what do they do to each other? Answer in three sentences."


class Engine:
    """An engine process and its channel."""

    def __init__(self, model: str):
        """Start it and wait until it is ready."""
        ours, theirs = socket.socketpair()
        environment = os.environ | {CHANNEL_VARIABLE: str(theirs.fileno())}
        command = (sys.executable, "-m", "mondrian_server.engine.process")
        self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment)
        theirs.close()
        self._socket = ours
        self._channel: BlockingChannel[Any] = BlockingChannel(ours, FromEngine)
        config = EngineConfig(model=model, slots=32, prefill_step_tokens=256, prefix_cache_bytes=0)
        self._channel.send(Configure(config=config))
        self._row = 0
        self.usage = psutil.Process(self._process.pid)
        while not isinstance(frame := self._channel.receive(), Ready):
            if frame is None or isinstance(frame, LoadFailed):
                raise SystemExit(f"the engine did not start: {frame}")

    def run(self, rows: int, **settings: Any) -> float:
        """Generate for so many rows at once and return tokens per second."""
        began = time.perf_counter()
        for _ in range(rows):
            self._row += 1
            self._channel.send(_submit(self._row, **settings))
        tokens, left = 0, rows
        while left:
            frame = self._channel.receive()
            for update in frame.rows if isinstance(frame, Step) else ():
                tokens += isinstance(update, RowTokens)
                left -= isinstance(update, RowDone | RowFailed)
        return tokens / (time.perf_counter() - began)

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.wait(timeout=10)


class Bare:
    """mlx-vlm alone, in this process."""

    def __init__(self, model: str):
        """Load the model as the engine does."""
        self.usage = psutil.Process()
        loaded: tuple[Any, Any] = member("mlx_vlm", "load")(model)
        self._model, self._processor = loaded
        if mx.default_device().type == mx.DeviceType.cpu:
            halves = (mx.float16, mx.bfloat16)
            change_parameters(self._model, lambda a: a.astype(mx.float32) if a.dtype in halves else a)
            evaluate(*(array for _, array in parameters(self._model)))
        self._ids = list[int](self._processor.tokenizer(PROMPT)["input_ids"])
        self._processor.tokenizer.stopping_criteria.eos_token_ids = []

    def run(self, rows: int, **settings: Any) -> float:
        """Generate for so many rows at once, with mlx-vlm's own seeded sampler, and return tokens per second."""
        began = time.perf_counter()
        generator = self._generator(settings)
        inputs = [self._model.get_input_embeddings(mx.array([self._ids])).to_dict() for _ in range(rows)]
        generator.insert([self._ids] * rows, max_tokens=TOKENS, prompt_kwargs=inputs)
        tokens = 0
        while generator.has_work:
            tokens += len(generator.next()[1])
        generator.close()
        return tokens / (time.perf_counter() - began)

    def _generator(self, settings: dict[str, Any]) -> Any:
        sampler = member("mlx_vlm.generate.ar", "_PositionedTargetSampler")(seed=1, **settings) if settings else None
        build = member("mlx_vlm.generate", "BatchGenerator")
        return build(self._model.language_model, self._processor, sampler=sampler, compute_logprobs=False)


def _submit(row: int, **settings: Any) -> Submit:
    neutral: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    sampling = RowSampling(
        max_tokens=TOKENS, default_max_tokens=TOKENS, min_tokens=TOKENS, seed=row, stop=(), **neutral | settings
    )
    return Submit(row=row, instructions="", prompt=PROMPT, pictures=(), sampling=sampling, cache_scope="bench")


def measure(usage: psutil.Process, run: Callable[[], float]) -> tuple[float, float]:
    """Return the tokens per second of a run, and its tokens per second of processor time."""
    before, began = usage.cpu_times(), time.perf_counter()
    rate = run()
    after, took_s = usage.cpu_times(), time.perf_counter() - began
    return rate, rate * took_s / (after.user + after.system - before.user - before.system)


def compare(name: str, rounds: int, bare: Bare, engine: Engine, rows: int, **settings: Any) -> None:
    """Run both in turns and print the medians, of wall-clock and of processor time."""
    pairs = [
        (
            measure(bare.usage, lambda: bare.run(rows, **settings)),
            measure(engine.usage, lambda: engine.run(rows, **settings)),
        )
        for _ in range(rounds)
    ]
    for index, clock in enumerate(("wall", "cpu")):
        theirs, ours = ([pair[who][index] for pair in pairs] for who in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(theirs, ours, strict=True))
        a, b = statistics.median(theirs), statistics.median(ours)
        print(  # what a benchmark is for
            f"{name:<8} {rows:>3} rows  {clock:<4}  bare {a:7.1f}  engine {b:7.1f} tokens/s  ratio {ratio:.3f}",
            flush=True,
        )


def main() -> None:
    """Compare greedy and sampled rows."""
    embedded = Path(__file__).parents[1] / "models" / "mondrian-tiny"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(embedded))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    engine, bare = Engine(arguments.model), Bare(arguments.model)
    sampled = {"temperature": 0.8, "top_p": 0.9, "top_k": 40}
    try:
        bare.run(1)
        kinds: tuple[tuple[str, dict[str, Any]], ...] = (("greedy", {}), ("sampled", sampled))
        for name, settings in kinds:
            for rows in (1, 8, 32):
                compare(name, arguments.rounds, bare, engine, rows, **settings)
    finally:
        engine.close()


if __name__ == "__main__":
    main()
