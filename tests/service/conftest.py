"""A service that tests share, for all that does it no harm."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.service.calls import Running, settings_for, started


@pytest_asyncio.fixture(scope="session")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A running service on the embedded model."""
    async with started(settings_for(tmp_path_factory.mktemp("data"))) as running:
        yield running


@pytest.fixture
def picture() -> bytes:
    """A sample picture, as a file's bytes."""
    samples = Path(__file__).parents[2] / "models" / "mondrian-tiny" / "samples"
    return min(samples.iterdir()).read_bytes()
