"""What any store must do with events: number, keep, read, wait."""

import asyncio

import pytest

from mondrian_server.errors import MondrianError
from mondrian_server.events import Event, Failed
from mondrian_server.log.interface import EventLog
from tests.log.conftest import Store
from tests.log.samples import (
    ACCEPTED,
    CANCELLED,
    FAILED,
    PROGRESS,
    begun,
    completed,
    ended,
    everything,
    kept,
    token,
    watched,
)

LONG_AGO_S = 1_000_000.0
NOTHING_TOO_LARGE = 1 << 60


class TestAppending:
    """Numbering, and what may be appended."""

    async def test_sequences_count_from_one_in_each_analysis(self, log: EventLog) -> None:
        """Each analysis has its own 1, 2, 3, … however their events are mixed."""
        names = [await begun(log), await begun(log)]

        events = [log.append(name, token(index=index)) for index in range(5) for name in names]

        assert [event.sequence for event in events] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        for name in names:
            await kept(log, name, 5)
            assert [event.sequence for event in await everything(log, name)] == [1, 2, 3, 4, 5]

    async def test_events_come_back_as_they_were(self, log: EventLog, store: Store) -> None:
        """Every payload, its time and its place are the same when read from another life of the log."""
        name = await begun(log)
        sent = [log.append(name, payload) for payload in (ACCEPTED, PROGRESS, token(" réd 🟥"), completed(" réd 🟥"))]
        await kept(log, name, 4)
        await log.close()

        again = await store.open()
        found = await everything(again, name)
        await again.close()

        assert found == sent

    async def test_an_error_comes_back_with_its_class(self, log: EventLog, store: Store) -> None:
        """A failure's error keeps reason, message, field and retry, and is of the same class."""
        name = await begun(log)
        log.append(name, FAILED)
        await log.close()

        again = await store.open()
        payload = (await again.read(name, 0))[0].payload
        await again.close()

        assert isinstance(payload, Failed)
        assert type(payload.error) is type(FAILED.error)
        assert _facts(payload.error) == _facts(FAILED.error)

    async def test_nothing_follows_the_terminal_event(self, log: EventLog) -> None:
        """Appending after the end raises, and changes nothing."""
        name = await ended(log)

        with pytest.raises(ValueError, match="ended"):
            log.append(name, token())

        assert (await everything(log, name))[-1].is_terminal

    async def test_nothing_follows_a_terminal_event_that_is_not_yet_kept(self, log: EventLog) -> None:
        """The end counts from the moment at which it is appended."""
        name = await begun(log)
        log.append(name, CANCELLED)

        with pytest.raises(ValueError, match="ended"):
            log.append(name, token())

    async def test_an_unknown_name_is_refused(self, log: EventLog) -> None:
        """Appending to an analysis that was never created raises KeyError."""
        with pytest.raises(KeyError):
            log.append("analyses/none", token())


class TestReading:
    """Cursors."""

    async def test_an_event_is_not_seen_before_it_is_kept(self, log: EventLog) -> None:
        """Appending makes nothing visible by itself."""
        name = await begun(log)
        log.append(name, ACCEPTED)

        # `read` of what is in memory gives way to nobody: the store cannot have answered in between.
        assert list(await log.read(name, 0)) == []
        await kept(log, name, 1)
        assert len(await log.read(name, 0)) == 1

    async def test_reading_continues_after_a_cursor(self, log: EventLog) -> None:
        """A page begins after the cursor and holds at most `limit` events, oldest first."""
        name = await begun(log)
        for index in range(40):
            log.append(name, token(index=index))
        await kept(log, name, 40)

        pages = [await log.read(name, after, 7) for after in (0, 7, 20, 35, 39, 40, 99)]

        sequences = [[event.sequence for event in page] for page in pages]
        assert sequences[0] == [1, 2, 3, 4, 5, 6, 7]
        assert sequences[1] == [8, 9, 10, 11, 12, 13, 14]
        assert sequences[2] == [21, 22, 23, 24, 25, 26, 27]
        assert sequences[3:] == [[36, 37, 38, 39, 40], [40], [], []]

    async def test_watchers_share_the_events(self, log: EventLog) -> None:
        """Two hundred watchers of one analysis hold the same objects, not copies."""
        name = await begun(log)
        for index in range(5):
            log.append(name, token(index=index))
        await kept(log, name, 5)

        pages = [await log.read(name, 0) for _ in range(200)]

        assert len({id(event) for page in pages for event in page}) == 5

    async def test_many_watchers_see_everything(self, log: EventLog) -> None:
        """Watchers that come before, during and after see each event once, in order."""
        name = await begun(log)
        early = [asyncio.create_task(_watch(log, name)) for _ in range(20)]
        for index in range(100):
            log.append(name, token(index=index))
            if index % 10 == 0:
                await kept(log, name, index + 1)
        middle = [asyncio.create_task(_watch(log, name)) for _ in range(20)]
        await asyncio.sleep(0)
        log.append(name, completed("all"))
        seen = await asyncio.gather(*early, *middle, _watch(log, name))

        assert all([event.sequence for event in events] == list(range(1, 102)) for events in seen)

    async def test_an_unknown_name_is_not_read(self, log: EventLog) -> None:
        """Reading and waiting for what was never created raise KeyError."""
        with pytest.raises(KeyError):
            await log.read("analyses/none", 0)
        with pytest.raises(KeyError):
            await log.wait("analyses/none", 0)


class TestWaiting:
    """Being told that there is more."""

    async def test_waiting_ends_with_the_next_kept_event(self, log: EventLog) -> None:
        """A watcher at the end is woken by the next event."""
        name = await begun(log)
        waiting = asyncio.create_task(log.wait(name, 0))
        await asyncio.sleep(0.02)
        assert not waiting.done()

        log.append(name, ACCEPTED)
        await asyncio.wait_for(waiting, 10)

        assert len(await log.read(name, 0)) == 1

    async def test_waiting_for_what_is_there_returns_at_once(self, log: EventLog) -> None:
        """There is nothing to wait for behind the end, whether the analysis is active or ended."""
        name = await ended(log)

        await asyncio.wait_for(log.wait(name, 0), 10)

    async def test_waiting_ahead_outlasts_the_events_before(self, log: EventLog) -> None:
        """A cursor in the future is not reached by the events before it."""
        name = await begun(log)
        waiting = asyncio.create_task(log.wait(name, 2))
        for index in range(2):
            log.append(name, token(index=index))
        await kept(log, name, 2)
        await asyncio.sleep(0.02)
        assert not waiting.done()

        log.append(name, token(index=2))

        await asyncio.wait_for(waiting, 10)

    async def test_deletion_wakes_watchers(self, log: EventLog) -> None:
        """Whoever waits for a deleted analysis is let go, and finds it gone."""
        name = await ended(log)
        waiting = asyncio.create_task(log.wait(name, 4))
        await asyncio.sleep(0.02)

        await log.delete(name)
        await asyncio.wait_for(waiting, 10)

        with pytest.raises(KeyError):
            await log.read(name, 0)

    async def test_a_waiter_that_gives_up_leaves_nothing(self, log: EventLog) -> None:
        """Cancelled waits harm neither the log nor those who still wait."""
        name = await begun(log)
        leaving = [asyncio.create_task(log.wait(name, 0)) for _ in range(10)]
        staying = asyncio.create_task(log.wait(name, 0))
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

        log.append(name, ACCEPTED)

        await asyncio.wait_for(staying, 10)


async def _watch(log: EventLog, name: str) -> list[Event]:
    return [event async for event in watched(log, name)]


def _facts(error: MondrianError) -> tuple[str, str, str, float | None]:
    return error.reason, error.message, error.field, error.retry_after_s
