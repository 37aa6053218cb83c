"""Watching: every event in order to the terminal one, whenever it is kept, and an end for every watcher."""

import asyncio

import pytest

from mondrian_server import errors
from mondrian_server.events import Cancelled, Completed, Stage, Token
from mondrian_server.log.interface import State
from tests.conditions import eventually
from tests.unit.office import LOCAL, Office
from tests.unit.stand_ins import done, stage, tokens


def is_whole(sequences: list[int]) -> bool:
    """Return whether sequences begin at 1 and have no gap."""
    return sequences == list(range(1, len(sequences) + 1))


async def test_no_watcher_misses_the_end(office: Office) -> None:
    """However the end falls between reading and keeping, every watcher sees every event and the terminal one."""
    for number in range(60):
        name = await office.create()
        row = office.engine.rows[-1]
        watchers = [office.watch(name) for _ in range(3)]
        for text in "ab":
            for _ in range(number % 4):
                await asyncio.sleep(0)
            office.step(tokens(row, text))
        office.step(done(row, output_tokens=2))
        for watcher in watchers:
            events = await watcher.end()
            assert isinstance(events[-1].payload, Completed)
            assert is_whole([event.sequence for event in events])


async def test_a_watcher_that_has_seen_the_end_gets_nothing_more(office: Office) -> None:
    """After the last sequence, or beyond it, the stream of an ended analysis ends at once and in order."""
    name = await office.create()
    office.step(done(1))
    last = (await office.events(name))[-1].sequence
    for after_sequence in (last, last + 5):
        assert await office.watch(name, after_sequence).end() == []


async def test_a_foreign_analysis_is_not_there(office: Office) -> None:
    """Another caller can neither watch, get, list, cancel nor delete it."""
    name = await office.create()
    with pytest.raises(errors.AnalysisNotFound):
        await anext(office.service.watch(name, "stranger"))
    for way in (office.service.get, office.service.cancel, office.service.delete):
        with pytest.raises(errors.AnalysisNotFound):
            await way(name, "stranger")
    assert await office.service.list("stranger", ()) == []
    assert office.service.live == 1


async def test_a_deleted_analysis_ends_its_watchers(office: Office) -> None:
    """One that has read everything but the end is told that the analysis is gone, or sees its end."""
    name = await office.create()
    watcher = office.watch(name)
    await eventually(lambda: watcher.events)
    await office.cancel(name)
    await office.service.delete(name, LOCAL)
    try:
        assert isinstance((await watcher.end())[-1].payload, Cancelled)
    except errors.AnalysisNotFound:
        assert watcher.error is not None
    with pytest.raises(errors.AnalysisNotFound):
        await office.watch(name).end()


async def test_one_that_leaves_disturbs_nobody(office: Office) -> None:
    """A watcher that goes away in any moment leaves the others and the analysis alone."""
    name = await office.create()
    stays = office.watch(name)
    for text in "abcdef":
        leaves = office.watch(name)
        await asyncio.sleep(0)
        office.step(tokens(1, text))
        await leaves.leave()
    office.step(done(1, output_tokens=6))
    assert is_whole([event.sequence for event in await stays.end()])


async def test_draining_ends_no_stream_before_its_terminal_event(office: Office) -> None:
    """Whoever watches an analysis that ends within the grace sees its end, and not that the server is ending."""
    names = [await office.create(), await office.create()]
    watchers = [office.watch(name) for name in names]
    await eventually(lambda: all(watcher.events for watcher in watchers))
    draining = asyncio.create_task(office.service.drain(30.0))
    await asyncio.sleep(0)
    office.step(tokens(1, "x"), done(1), tokens(2, "y"), done(2))
    await asyncio.wait_for(draining, 5)
    for watcher, text in zip(watchers, "xy", strict=True):
        last = (await watcher.end())[-1].payload
        assert isinstance(last, Completed)
        assert last.text == text


async def test_draining_wakes_watchers_when_they_have_everything(office: Office) -> None:
    """What outlasts the grace stays active; its watchers get what was written last, and then SHUTTING_DOWN."""
    names = [await office.create(prompt) for prompt in ("running", "running too", "waiting")]
    watchers = [office.watch(name) for name in names]
    await eventually(lambda: all(watcher.events for watcher in watchers))
    office.step(stage(1, Stage.GENERATING), tokens(1, "half"))
    await asyncio.wait_for(office.service.drain(0.0), 5)
    for watcher in watchers:
        with pytest.raises(errors.ShuttingDown) as caught:
            await watcher.end()
        assert caught.value.retry_after_s is not None
    for name, watcher in zip(names, watchers, strict=True):
        assert watcher.events == list(await office.events(name))
        assert (await office.record(name)).state is State.ACTIVE
    last = watchers[0].events[-1].payload
    assert isinstance(last, Token)
    assert last.text == "half"


async def test_a_watch_that_begins_after_the_drain_is_told_so(office: Office) -> None:
    """It gets what is kept, and then SHUTTING_DOWN; the watch of an ended analysis is as ever."""
    active, ended = await office.create(), await office.create()
    office.step(done(2))
    await office.service.drain(0.0)
    late = office.watch(active)
    with pytest.raises(errors.ShuttingDown):
        await late.end()
    assert late.events == list(await office.events(active))
    assert isinstance((await office.watch(ended).end())[-1].payload, Completed)


async def test_whoever_is_cancelled_during_the_drain_ends(office: Office) -> None:
    """A client that goes away in the moment of the drain leaves no watcher behind."""
    name = await office.create()
    watcher = office.watch(name)
    await eventually(lambda: watcher.events)
    draining = asyncio.create_task(office.service.drain(0.0))
    await watcher.leave()
    await asyncio.wait_for(draining, 5)
    assert watcher.ended
