"""Housekeeping: what is too old or too much goes, and no failure ends the housekeeping."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from mondrian_server.analyses.housekeeping import Retention, keep_house
from mondrian_server.errors import EventsExpired, LogUnavailable
from mondrian_server.log.interface import State
from tests.conditions import eventually
from tests.unit.office import LOCAL, Office
from tests.unit.stand_ins import done, tokens


@contextlib.asynccontextmanager
async def kept(office: Office, *, age_s: float = 3600.0, total_bytes: int = 1 << 30) -> AsyncGenerator[None]:
    """Keep house in a block, with a look every few milliseconds."""
    retention = Retention(age_s=age_s, total_bytes=total_bytes, interval_s=0.02)
    house = asyncio.create_task(keep_house(office.log, office.service, retention))
    try:
        yield
        assert not house.done(), "housekeeping goes on until it is cancelled"
    finally:
        house.cancel()
        await asyncio.wait((house,))


async def ended(office: Office, text: str = "x") -> str:
    """Return an analysis that has ended."""
    name = await office.create()
    row = office.engine.rows[-1]
    office.step(tokens(row, text), done(row))
    return name


async def expired(office: Office, names: Sequence[str]) -> list[bool]:
    """Return which analyses have expired."""
    return [(await office.record(name)).expired for name in names]


async def has_expired(office: Office, names: Sequence[str], least: int) -> bool:
    """Return whether so many of the analyses have expired."""
    return sum(await expired(office, names)) >= least


async def test_what_is_too_old_expires_and_what_is_active_stays(office: Office) -> None:
    """The ended lose their events, which is told to those who ask for them; the active are never too old."""
    name, active = await ended(office), await office.create()
    async with kept(office, age_s=0.3):
        assert await expired(office, [name]) == [False]
        await eventually(lambda: has_expired(office, [name], 1), within_s=10.0)
    watcher = office.watch(name)
    with contextlib.suppress(EventsExpired):
        await watcher.end()
    assert isinstance(watcher.error, EventsExpired)
    view = await office.service.get(name, LOCAL)
    assert (view.record.state, view.spec, view.text) == (State.COMPLETED, None, "")
    assert await expired(office, [active]) == [False]
    assert office.service.live == 1


async def test_what_is_too_much_goes_from_the_oldest_on(office: Office) -> None:
    """The newest stay as far as there is room."""
    names = [await ended(office, "x" * 20_000) for _ in range(4)]
    async with kept(office, total_bytes=100_000):
        await eventually(lambda: has_expired(office, names, 2), within_s=10.0)
    found = await expired(office, names)
    assert found == sorted(found, reverse=True), "the oldest first"
    assert not found[-1]


async def test_a_wish_of_others_to_cancel_is_heard(office: Office) -> None:
    """What stands in the log as a wish becomes the end of a live analysis."""
    name = await office.create()
    async with kept(office):
        await office.log.cancel(name)
        await eventually(lambda: office.service.live == 0)
    assert (await office.record(name)).state is State.CANCELLED


async def test_no_failure_ends_the_housekeeping(office: Office) -> None:
    """A log that is away for a while, or has a defect, is looked after again when it is back."""
    name = await office.create()
    for error in (LogUnavailable("full"), RuntimeError("a defect")):
        office.log.failures.append(error)
    async with kept(office):
        await eventually(lambda: not office.log.failures)
        await office.log.cancel(name)
        await eventually(lambda: office.service.live == 0)
