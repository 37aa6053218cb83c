"""A server that runs: who answers at its address, whether it serves, and in what state its model is."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import mondrian
from mondrian_server.doctor.certificates import is_shown, shown_at
from mondrian_server.doctor.finding import Finding, ok, problem, warning

CHECK = "server"
_ANSWER_LIMIT_S = 5.0
_HEALTH_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server of ours that answers.

    serves: whether its health is SERVING; None where it was not asked.
    models: its models; None where it tells them to callers that it knows alone.
    """

    serves: bool | None
    models: tuple[mondrian.Model, ...] | None = None


async def look(address: str, certificate: Path | None = None) -> Running | None:
    """Return what a server says of itself, or None where nobody, or something else, answers.

    Args:
        address: `host:port` at which a server with these settings would listen.
        certificate: the one that it would show; it is known by that, and asked nothing.

    """
    host, _, port = address.rpartition(":")
    if port == "0":
        return None
    if certificate is not None:
        bare = host.removeprefix("[").removesuffix("]")
        shown = await asyncio.to_thread(shown_at, bare, int(port), _ANSWER_LIMIT_S)
        return Running(serves=None) if is_shown(certificate, shown) else None
    return await _ask(address)


async def _ask(address: str) -> Running | None:
    async with mondrian.AsyncClient(address) as client:
        try:
            models = tuple(await client.list_models(timeout=_ANSWER_LIMIT_S))
        except mondrian.MondrianError as error:
            # A reason is what only a server of ours gives; these two are the client's own.
            if not error.reason or isinstance(error, mondrian.ConnectionFailed | mondrian.DeadlineExceeded):
                return None
            models = None
        try:
            await client.wait_until_ready(timeout=_HEALTH_LIMIT_S)
        except mondrian.MondrianError:
            return Running(serves=False, models=models)
        return Running(serves=True, models=models)


def find_server(address: str, running: Running | None) -> Finding:
    """Return how a server that runs is, or that none does."""
    if running is None:
        return ok(CHECK, f"none answers at {address}; start one with `mondrian serve`")
    if running.models:
        return _state(running.models[0], serves=running.serves is not False)
    if running.serves is None:
        return ok(CHECK, f"one with the certificate of these settings answers at {address}; it was asked no more")
    told = f"one answers at {address}, and tells its models to callers with a key alone"
    return ok(CHECK, f"{told}; it serves") if running.serves else _silent(told)


def _state(model: mondrian.Model, *, serves: bool) -> Finding:
    told = f"{model.name}: {model.state.name.lower()}, {model.slots_in_use} of {model.slots} slots in use"
    if model.queue_length:
        told += f", {model.queue_length} waiting"
    match model.state:
        case mondrian.ModelState.LOADING:
            return warning(CHECK, told, "wait until it is loaded; analyses wait for it as well")
        case mondrian.ModelState.UNAVAILABLE:
            return problem(CHECK, f"{told}; its engine is down", "see why in its log; it is started again by itself")
        case _:
            return ok(CHECK, f"serves {told}") if serves else _silent(told)


def _silent(told: str) -> Finding:
    return problem(CHECK, f"{told}; it does not serve", "see its log: no engine, no room for events, or it ends")
