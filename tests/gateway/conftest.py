"""A service with its gateway that tests share, for all that does it no harm."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.client.scripted_server import ScriptedServer, scripted_server
from tests.gateway.face import PICTURE, Face, facing
from tests.service.calls import Running, settings_for, started


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A service, and its gateway."""

    running: Running
    face: Face


@pytest_asyncio.fixture(scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """A running service on the embedded model with its gateway."""
    settings = settings_for(tmp_path_factory.mktemp("data"), http_address="127.0.0.1:0")
    async with started(settings) as running:
        gateway = running.service.gateway
        assert gateway is not None
        async with facing(gateway.port) as face:
            yield Served(running=running, face=face)


@pytest.fixture
def face(served: Served) -> Face:
    """The gateway of the shared service."""
    return served.face


@pytest.fixture
def picture() -> bytes:
    """A sample picture, as a file's bytes."""
    return PICTURE.read_bytes()


@pytest_asyncio.fixture
async def script() -> AsyncGenerator[ScriptedServer]:
    """A gRPC server that says what the test wants said."""
    async with scripted_server() as server:
        yield server
