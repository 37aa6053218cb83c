"""Image decoders that tests share, for all that does them no harm."""

from collections.abc import AsyncGenerator

import pytest_asyncio

from mondrian_server.images.decoder import ImageDecoder
from mondrian_server.images.protocol import ImageLimits

SMALL_PIXELS = 64 * 64


@pytest_asyncio.fixture(scope="session")
async def decoder() -> AsyncGenerator[ImageDecoder]:
    """A running decoder with the default limits."""
    async with ImageDecoder(ImageLimits()) as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def small_decoder() -> AsyncGenerator[ImageDecoder]:
    """A running decoder whose pictures are small."""
    async with ImageDecoder(ImageLimits(max_normalised_pixels=SMALL_PIXELS)) as running:
        yield running
