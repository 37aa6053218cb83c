"""A scripted server for the commands to talk to."""

from collections.abc import AsyncIterator

import pytest

from tests.client.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """Run a server."""
    async with scripted_server() as running:
        yield running
