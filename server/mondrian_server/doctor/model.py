"""The model: whether it is there, and whether the engine loads it and says a first token."""

import asyncio
import hashlib
import json
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mondrian_server.doctor.finding import Finding, ok, problem, warning
from mondrian_server.doctor.machine import in_bytes, weights_bytes
from mondrian_server.engine.interface import EngineState, EngineStatus
from mondrian_server.engine.protocol import (
    EngineConfig,
    ModelDescription,
    RowDone,
    RowFailed,
    RowSampling,
    RowTokens,
    Step,
    Submit,
)
from mondrian_server.engine.supervisor import EngineSupervisor, SupervisionLimits
from mondrian_server.errors import StartupError
from mondrian_server.pictures import Picture

_T = TypeVar("_T")
_SIDE = 64
_ANOTHER = "name another one with --model, or download it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """What an engine is started with."""

    config: EngineConfig
    limits: SupervisionLimits
    command: Sequence[str]


def find_model_files(source: str) -> Finding:
    """Return whether the model is there, without loading it."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.exists() or source.count("/") != 1:
            return problem("model", f"{source} is no folder and no Hugging Face id", _ANOTHER)
        return ok("model", f"{source} is a Hugging Face id: loaded from the cache, or downloaded at the start")
    try:
        architecture = json.loads((folder / "config.json").read_bytes())["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return problem("model", f"{folder} has no config.json that names a model_type", _ANOTHER)
    size = weights_bytes(folder)
    if size is None:
        return problem("model", f"{folder} has no weights (*.safetensors)", _ANOTHER)
    return ok("model", f"{folder}: {architecture}, {in_bytes(size)} of weights")


async def find_by_loading(parts: EngineParts) -> AsyncGenerator[Finding]:
    """Start an engine as the server does, and yield whether it loads the model and says a first token."""
    began = asyncio.get_running_loop().time()
    supervisor, witness = EngineSupervisor(parts.config, parts.limits, command=parts.command), _Witness()
    supervisor.listen(witness)
    life = asyncio.create_task(supervisor.run())
    try:
        found = await _outcome(life, witness.ready)
        if not isinstance(found, EngineStatus) or found.model is None:
            yield _unloaded(found)
            return
        yield ok("model loads", f"in {_since(began):.1f} s: {_description(found.model, found.peak_memory_bytes)}")
        began = asyncio.get_running_loop().time()
        supervisor.submit(_row(with_picture=found.model.accepts_images))
        yield _first_token(await _outcome(life, witness.answered), _since(began), parts)
    finally:
        life.cancel()
        await asyncio.wait((life,))


class _Witness:
    """Hears what the engine does; each future holds what came, or None where the engine was lost."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[EngineStatus | None] = loop.create_future()
        self.answered: asyncio.Future[RowTokens | RowDone | RowFailed | None] = loop.create_future()

    def engine_changed(self, status: EngineStatus) -> None:
        if status.state is EngineState.READY and not self.ready.done():
            self.ready.set_result(status)

    def engine_step(self, step: Step) -> None:
        for update in step.rows:
            if isinstance(update, RowTokens | RowDone | RowFailed) and not self.answered.done():
                self.answered.set_result(update)

    def engine_lost(self) -> None:
        for future in (self.ready, self.answered):
            if not future.done():
                future.set_result(None)


async def _outcome(life: "asyncio.Task[None]", future: "asyncio.Future[_T]") -> _T | StartupError:
    """Wait for what the witness hears; a StartupError where the model cannot be loaded."""
    await asyncio.wait((life, future), return_when=asyncio.FIRST_COMPLETED)
    if future.done():
        return future.result()
    try:
        life.result()
    except StartupError as error:
        return error
    raise AssertionError("the supervisor ends only by an error")


def _unloaded(found: object) -> Finding:
    if isinstance(found, StartupError):
        return problem("model loads", " ".join(str(found).split()), _ANOTHER)
    advice = "see what the engine wrote above; more memory or a smaller model may help"
    return problem("model loads", "the engine ends, or falls silent, while it loads the model", advice)


def _first_token(answer: object, took_s: float, parts: EngineParts) -> Finding:
    if isinstance(answer, RowTokens | RowDone):
        text = f"after {took_s:.2f} s"
        if took_s > parts.limits.operation_limit_s / 2:
            return warning("first token", text, "raise --engine-operation-limit-s, or take a smaller model")
        return ok("first token", text)
    said = answer.message if isinstance(answer, RowFailed) else "the engine ends, or falls silent, while it generates"
    return problem("first token", said, "see what the engine wrote above; another model may work (--model)")


def _description(model: ModelDescription, peak_bytes: int) -> str:
    facts = [
        model.architecture,
        f"{model.parameters / 10**6:,.1f} M parameters",
        f"{model.context_tokens:,} tokens of context",
        "text and images" if model.accepts_images else "text alone",
        f"{in_bytes(peak_bytes)} of memory at the most",
    ]
    return ", ".join(facts)


def _row(*, with_picture: bool) -> Submit:
    pixels = bytes((127,)) * (3 * _SIDE * _SIDE)
    digest = hashlib.sha256(struct.pack("<II", _SIDE, _SIDE) + pixels).digest()
    picture = Picture(width=_SIDE, height=_SIDE, pixels=pixels, digest=digest)
    return Submit(
        row=1,
        instructions="",
        prompt="What do you see?",
        pictures=(picture,) if with_picture else (),
        sampling=_GREEDY,
        cache_scope="doctor",
    )


_GREEDY = RowSampling(
    max_tokens=1,
    default_max_tokens=1,
    min_tokens=1,
    temperature=0.0,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repetition_penalty=1.0,
    seed=0,
    stop=(),
)


def _since(began: float) -> float:
    return asyncio.get_running_loop().time() - began
