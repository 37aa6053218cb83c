"""Turns: one at a time, and callers alternate."""

import asyncio
import contextlib

import pytest

from mondrian_server.analyses.turns import Turns


class Table:
    """Something that only one can be at, and who has been there."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.turns = Turns()
        self.seen: list[str] = []
        self.at_it = 0
        self.go_on = asyncio.Event()

    def come(self, *names: str) -> list["asyncio.Task[None]"]:
        """Let several come in this order; the first letter of a name is the caller."""
        return [asyncio.create_task(self._sit(name)) for name in names]

    async def _sit(self, name: str) -> None:
        async with self.turns.turn(name[0]):
            self.at_it += 1
            assert self.at_it == 1
            await self.go_on.wait()
            await asyncio.sleep(0)
            self.seen.append(name)
            self.at_it -= 1


async def test_callers_take_turns() -> None:
    """One with many waiting does not keep another with one from its turn."""
    table = Table()
    tasks = table.come("a1", "a2", "a3", "a4", "b1", "c1", "b2")
    await asyncio.sleep(0)
    table.go_on.set()
    await asyncio.gather(*tasks)
    assert table.seen == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_whoever_goes_away_leaves_no_gap() -> None:
    """Waiting, or with the turn just given and not begun: the next one has it."""
    table = Table()
    table.go_on.set()
    async with contextlib.AsyncExitStack() as first:
        await first.enter_async_context(table.turns.turn("a"))
        tasks = table.come("a2", "b1", "a3")
        await asyncio.sleep(0)
        tasks[0].cancel()
        await first.aclose()
        tasks[1].cancel()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True, True, False]
    await asyncio.gather(*table.come("d1"))
    assert table.seen == ["a3", "d1"]


async def test_an_error_passes_the_turn_on() -> None:
    """Whatever ends the block ends the turn."""
    turns = Turns()
    with pytest.raises(RuntimeError):
        async with turns.turn("a"):
            raise RuntimeError("no")
    async with asyncio.timeout(5):
        async with turns.turn("b"):
            pass
