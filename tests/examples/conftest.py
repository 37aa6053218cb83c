"""A service with its gateway, which the examples ask."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.checkpoints import EMBEDDED
from tests.service.calls import Running, settings_for, started


@pytest_asyncio.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A running service with a gateway for pages of every origin; each token is sent at once."""
    settings = settings_for(
        tmp_path_factory.mktemp("data"),
        http_address="127.0.0.1:0",
        http_cors_origins=("*",),
        token_interval_s=0.0,
        engine_beat_timeout_s=60.0,
    )
    async with started(settings) as running:
        yield running


@pytest.fixture
def photo() -> Path:
    """A picture whose dominant colour is red."""
    return EMBEDDED / "samples" / "composition-red.jpg"


@pytest.fixture
def picture(photo: Path) -> bytes:
    """The file of that picture."""
    return photo.read_bytes()
