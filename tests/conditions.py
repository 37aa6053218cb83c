"""Conditions: waiting for what must come true, with a deadline."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], object], *, within_s: float = 15.0) -> None:
    """Wait until a condition (a function, or one that returns a coroutine) holds; raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if asyncio.iscoroutine(holds):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.01)
