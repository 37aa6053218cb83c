"""A scripted server, and both clients behind one face."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

import mondrian
from tests.client.scripted_server import ScriptedServer, scripted_server


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a loop over an analysis went."""

    events: list[mondrian.Event]
    error: mondrian.MondrianError | None
    text: str


class Caller(Protocol):
    """What a test asks of either client."""

    async def collect(self, prompt: str = "hi", **options: Any) -> Outcome:
        """Loop over an analysis to its end, good or bad."""
        ...

    async def watch(self, name: str, after_sequence: int = 0, **options: Any) -> Outcome:
        """Watch an analysis to its end, good or bad."""
        ...

    async def list(self, **options: Any) -> list[mondrian.Analysis]:
        """List analyses to the end."""
        ...

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method that returns one value."""
        ...


class AsyncCaller:
    """Calls through `AsyncClient`."""

    def __init__(self, client: mondrian.AsyncClient) -> None:
        self._client = client

    async def collect(self, prompt: str = "hi", **options: Any) -> Outcome:
        """Loop over an analysis to its end, good or bad."""
        return await self._follow(self._client.analyze(prompt, **options))

    async def watch(self, name: str, after_sequence: int = 0, **options: Any) -> Outcome:
        """Watch an analysis to its end, good or bad."""
        return await self._follow(self._client.watch(name, after_sequence, **options))

    async def list(self, **options: Any) -> "list[mondrian.Analysis]":
        """List analyses to the end."""
        return [analysis async for analysis in self._client.list(**options)]

    async def _follow(self, stream: mondrian.AsyncEventStream) -> Outcome:
        events: list[mondrian.Event] = []
        error = None
        try:
            async for event in stream:
                events.append(event)  # noqa: PERF401 - what came before the error counts
        except mondrian.MondrianError as raised:
            error = raised
        return Outcome(events=events, error=error, text=stream.text)

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method that returns one value."""
        return await getattr(self._client, method)(*args, **options)


class SyncCaller:
    """Calls through `Client`, in a thread."""

    def __init__(self, client: mondrian.Client) -> None:
        self._client = client

    async def collect(self, prompt: str = "hi", **options: Any) -> Outcome:
        """Loop over an analysis to its end, good or bad."""
        return await asyncio.to_thread(self._follow, self._client.analyze(prompt, **options))

    async def watch(self, name: str, after_sequence: int = 0, **options: Any) -> Outcome:
        """Watch an analysis to its end, good or bad."""
        return await asyncio.to_thread(self._follow, self._client.watch(name, after_sequence, **options))

    async def list(self, **options: Any) -> "list[mondrian.Analysis]":
        """List analyses to the end."""
        return await asyncio.to_thread(lambda: [*self._client.list(**options)])

    def _follow(self, stream: mondrian.EventStream) -> Outcome:
        events: list[mondrian.Event] = []
        error = None
        try:
            for event in stream:
                events.append(event)  # noqa: PERF402 - what came before the error counts
        except mondrian.MondrianError as raised:
            error = raised
        return Outcome(events=events, error=error, text=stream.text)

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method that returns one value."""
        return await asyncio.to_thread(getattr(self._client, method), *args, **options)


@asynccontextmanager
async def threaded_client(address: str) -> AsyncGenerator[mondrian.Client]:
    """Connect a client for threads; its close waits for the server, which runs on this event loop."""
    client = mondrian.Client(address)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.close)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """Run a server."""
    async with scripted_server() as running:
        yield running


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncGenerator[mondrian.AsyncClient]:
    """Connect an asyncio client to the server."""
    async with mondrian.AsyncClient(server.address) as connected:
        yield connected


@pytest.fixture(params=["async", "sync"])
async def caller(request: pytest.FixtureRequest, server: ScriptedServer) -> AsyncGenerator[Caller]:
    """Connect each client to the server in turn."""
    if request.param == "async":
        async with mondrian.AsyncClient(server.address) as client:
            yield AsyncCaller(client)
    else:
        async with threaded_client(server.address) as client:
            yield SyncCaller(client)
