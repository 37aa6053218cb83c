"""Engines that tests share, for all that leaves nothing behind in them."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.checkpoints import write_untrained
from tests.engine.engines import Engine

CONTEXT = 200
SMALL_CACHE_BYTES = 1_000_000


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint of the embedded model's shape."""
    return write_untrained(tmp_path_factory.mktemp("models") / "untrained")


@pytest.fixture(scope="session")
def flat(untrained: Path) -> Generator[Engine]:
    """An engine with the untrained checkpoint."""
    with Engine(untrained) as engine:
        yield engine.ready()


@pytest.fixture(scope="session")
def small(untrained: Path) -> Generator[Engine]:
    """An engine whose context is bounded below the model's own, and whose caches hold next to nothing."""
    with Engine(
        untrained, max_context_tokens=CONTEXT, vision_cache_entries=2, prefix_cache_bytes=SMALL_CACHE_BYTES
    ) as engine:
        yield engine.ready()
