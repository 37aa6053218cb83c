"""The machine: the device on which MLX computes, and memory against the size of the model."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

from mondrian_server.child import python
from mondrian_server.doctor.finding import Finding, ok, problem, warning
from mondrian_server.doctor.versions import INSTALL

PROBE = python("mondrian_server.engine.process.probe")
_PROBE_LIMIT_S = 120.0
_SMALLER = "take a smaller or more strongly quantised model (--model)"


class _Device(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    name: str
    memory_bytes: int


async def find_device(command: Sequence[str] = PROBE) -> Finding:
    """Return where MLX computes, as a process of its own tells that imports it: MLX may end the one that asks."""
    try:
        async with asyncio.timeout(_PROBE_LIMIT_S):
            out, errors = await _output(command)
    except TimeoutError:
        return problem("device", f"MLX does not answer within {_PROBE_LIMIT_S:g} s", "restart the machine")
    try:
        return _device(msgspec.json.decode(out, type=_Device))
    except msgspec.MsgspecError:
        last = (errors.decode(errors="replace").split("\n") or [""])[-1]
        return problem("device", f"MLX does not work{f': {last[:200]}' if last else ''}", INSTALL)


async def _output(command: Sequence[str]) -> tuple[bytes, bytes]:
    """Run a program to its end and return what it wrote; one that is given up is killed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, errors = await process.communicate()
        return out, errors.strip()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _device(device: _Device) -> Finding:
    if device.kind == "gpu":
        memory = f", {in_bytes(device.memory_bytes)} for models" if device.memory_bytes else ""
        return ok("device", f"MLX computes on the GPU: {device.name}{memory}")
    text = f"MLX computes on the CPU: {device.name}"
    if sys.platform == "darwin":
        return warning("device", text, "run on Apple silicon, natively: the GPU is many times faster")
    return ok("device", text)


def find_memory(weights_bytes: int | None, available_bytes: int | None = None) -> Finding:
    """Return whether the model's weights fit into memory; `available_bytes` is asked of the machine by default."""
    memory = psutil.virtual_memory()
    available = memory.available if available_bytes is None else available_bytes
    text = f"{in_bytes(available)} of {in_bytes(memory.total)} available"
    if weights_bytes is None:
        return ok("memory", f"{text}; how much the model needs is known once it is here")
    text += f"; the model's weights are {in_bytes(weights_bytes)}"
    if weights_bytes > memory.total:
        return problem("memory", text, _SMALLER)
    if weights_bytes > available:
        return warning("memory", text, f"end other programs, or {_SMALLER}")
    return ok("memory", text)


def weights_bytes(folder: Path) -> int | None:
    """Return the size of a model folder's weights, or None where there are none."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.is_file()) or None


def in_bytes(count: int) -> str:
    """Return a count of bytes for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 2**10:,.1f} KiB"
