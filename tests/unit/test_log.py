"""The log's conformance suite: what every store of events must do."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import pytest_asyncio

from mondrian_server.errors import InternalError
from mondrian_server.events import Cancelled, Completed, Failed, FinishReason, Payload, Stage, Token
from mondrian_server.log.interface import EventLog
from mondrian_server.log.memory import MemoryLog

StoreFactory = Callable[[], AbstractAsyncContextManager[EventLog]]


@asynccontextmanager
async def memory() -> AsyncGenerator[EventLog]:
    """Open the log in memory."""
    yield MemoryLog()


STORES: dict[str, StoreFactory] = {"memory": memory}
"""Every store there is: a new one takes one line here."""


def token(text: str) -> Token:
    """Return a token event."""
    return Token(text=text, first_index=0, token_count=1)


TERMINALS: tuple[Payload, ...] = (
    Completed(text="", finish_reason=FinishReason.STOP),
    Failed(error=InternalError("x")),
    Cancelled(stage=Stage.QUEUED),
)


@pytest_asyncio.fixture(params=STORES)
async def log(request: pytest.FixtureRequest) -> AsyncGenerator[EventLog]:
    """Return an open store with the empty log of `analyses/1`."""
    name: str = request.param
    async with STORES[name]() as store:
        store.create("analyses/1")
        yield store


async def kept(log: EventLog, count: int) -> list[str]:
    """Wait until so many events are kept, and return their texts."""
    await asyncio.wait_for(log.wait("analyses/1", count - 1), 5)
    return [event.payload.text for event in log.read("analyses/1", 0) if isinstance(event.payload, Token)]


class TestLog:
    """Numbers, cursors, ends and waiting."""

    async def test_sequences_begin_at_one_and_have_no_gap(self, log: EventLog) -> None:
        """Each event has the next number of its analysis, and its name and time."""
        events = [log.append("analyses/1", token(text)) for text in "abc"]
        assert [event.sequence for event in events] == [1, 2, 3]
        assert {event.analysis for event in events} == {"analyses/1"}
        assert all(event.create_time.tzinfo is not None for event in events)
        assert [event.create_time for event in events] == sorted(event.create_time for event in events)

    async def test_what_is_appended_is_read_in_order(self, log: EventLog) -> None:
        """Readers get exactly the events that were appended."""
        events = [log.append("analyses/1", token(text)) for text in "abc"]
        await kept(log, 3)
        assert list(log.read("analyses/1", 0)) == events

    async def test_a_cursor_reads_what_comes_after_it(self, log: EventLog) -> None:
        """From any cursor, the end and beyond included, the rest is read."""
        for text in "abc":
            log.append("analyses/1", token(text))
        await kept(log, 3)
        for cursor in range(5):
            rest = [event.sequence for event in log.read("analyses/1", cursor)]
            assert rest == [sequence for sequence in (1, 2, 3) if sequence > cursor]

    async def test_what_was_read_does_not_change(self, log: EventLog) -> None:
        """Events that were read stay as they were when more are appended."""
        log.append("analyses/1", token("a"))
        await kept(log, 1)
        before = log.read("analyses/1", 0)
        log.append("analyses/1", token("b"))
        await kept(log, 2)
        assert len(before) == 1

    async def test_analyses_do_not_mix(self, log: EventLog) -> None:
        """Each analysis has numbers and events of its own."""
        log.create("analyses/2")
        log.append("analyses/1", token("a"))
        event = log.append("analyses/2", token("b"))
        assert event.sequence == 1
        assert await kept(log, 1) == ["a"]

    @pytest.mark.parametrize("terminal", TERMINALS, ids=lambda terminal: type(terminal).__name__)
    async def test_nothing_comes_after_the_terminal_event(self, log: EventLog, terminal: Payload) -> None:
        """Every kind of end closes the log."""
        log.append("analyses/1", terminal)
        for payload in (token("late"), *TERMINALS):
            with pytest.raises(ValueError, match="ended"):
                log.append("analyses/1", payload)
        await asyncio.wait_for(log.wait("analyses/1", 0), 5)
        assert len(log.read("analyses/1", 0)) == 1

    async def test_a_log_is_created_once(self, log: EventLog) -> None:
        """A second log of the same analysis is refused and leaves the first alone."""
        log.append("analyses/1", token("a"))
        with pytest.raises(ValueError, match="already"):
            log.create("analyses/1")
        assert await kept(log, 1) == ["a"]

    async def test_waiting_ends_at_once_where_there_is_news(self, log: EventLog) -> None:
        """A cursor behind the end waits for nothing."""
        log.append("analyses/1", token("a"))
        await kept(log, 1)
        await asyncio.wait_for(log.wait("analyses/1", 0), 5)

    async def test_waiting_ends_with_the_next_event(self, log: EventLog) -> None:
        """A cursor at the end waits until an event comes, and sleeps on through events that it knows."""
        waiting = asyncio.create_task(log.wait("analyses/1", 1))
        log.append("analyses/1", token("a"))
        await kept(log, 1)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        log.append("analyses/1", token("b"))
        await asyncio.wait_for(waiting, 5)
        assert await kept(log, 2) == ["a", "b"]

    async def test_every_watcher_is_woken(self, log: EventLog) -> None:
        """Many cursors wait for the same event."""
        waiting = [asyncio.create_task(log.wait("analyses/1", 0)) for _ in range(5)]
        await asyncio.sleep(0)
        log.append("analyses/1", token("a"))
        await asyncio.wait_for(asyncio.gather(*waiting), 5)

    async def test_no_event_is_missed_between_reading_and_waiting(self, log: EventLog) -> None:
        """A watcher that reads and waits in turn sees every event once, however they come."""
        seen: list[int] = []

        async def watch() -> None:
            cursor = 0
            while cursor < 100:
                await log.wait("analyses/1", cursor)
                events = log.read("analyses/1", cursor)
                seen.extend(event.sequence for event in events)
                cursor = seen[-1]

        watching = asyncio.create_task(watch())
        for number in range(100):
            log.append("analyses/1", token(str(number)))
            if number % 7 == 0:
                await asyncio.sleep(0)
        await asyncio.wait_for(watching, 5)
        assert seen == list(range(1, 101))

    async def test_a_cancelled_watcher_disturbs_nobody(self, log: EventLog) -> None:
        """One that goes away leaves the others waiting."""
        gone, stays = (asyncio.create_task(log.wait("analyses/1", 0)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait((gone,))
        log.append("analyses/1", token("a"))
        await asyncio.wait_for(stays, 5)

    async def test_a_deleted_log_is_gone_and_wakes_its_watchers(self, log: EventLog) -> None:
        """Watchers hear a KeyError, readers too; deleting again is nothing."""
        waiting = asyncio.create_task(log.wait("analyses/1", 0))
        await asyncio.sleep(0)
        log.delete("analyses/1")
        with pytest.raises(KeyError):
            await asyncio.wait_for(waiting, 5)
        with pytest.raises(KeyError):
            log.read("analyses/1", 0)
        log.delete("analyses/1")

    async def test_an_unknown_log_is_a_key_error(self, log: EventLog) -> None:
        """Reading, waiting and appending need a log."""
        with pytest.raises(KeyError):
            log.read("analyses/none", 0)
        with pytest.raises(KeyError):
            await log.wait("analyses/none", 0)
        with pytest.raises(KeyError):
            log.append("analyses/none", token("a"))


async def test_the_log_in_memory_counts_its_analyses() -> None:
    """What is deleted is not held."""
    log = MemoryLog()
    log.create("analyses/1")
    log.create("analyses/2")
    log.delete("analyses/1")
    assert len(log) == 1
