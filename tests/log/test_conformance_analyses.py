"""What any store must do with analyses: records, request ids, images, lists, leases, deletion, expiry, closing."""

import asyncio
import time

import msgspec
import pytest

from mondrian_server.errors import EventsExpired, LogUnavailable
from mondrian_server.events import Completed, Failed
from mondrian_server.log.interface import EventLog, Images, RequestIdTaken, State
from tests.conditions import eventually
from tests.log.conftest import Store
from tests.log.samples import (
    ACCEPTED,
    CANCELLED,
    FAILED,
    LEASE_S,
    OWNER,
    PROGRESS,
    begun,
    completed,
    ended,
    everything,
    kept,
    payloads,
    picture,
    record,
    token,
)

LONG_AGO_S = 1_000_000.0
NOTHING_TOO_LARGE = 1 << 60


class TestRecords:
    """What is kept beside the events."""

    async def test_a_record_comes_back_as_it_was(self, log: EventLog) -> None:
        """An active record is what was created, with the store's number."""
        new = record(request_id="r1", spec=b"\x00 anything \xff")
        await begun(log, new)

        found = await log.get(new.name)

        assert msgspec.structs.replace(found, number=0) == new
        assert found.state is State.ACTIVE

    async def test_names_are_unique(self, log: EventLog) -> None:
        """A second analysis of the same name is refused."""
        name = await begun(log)

        with pytest.raises(ValueError, match=name):
            await begun(log, record(name))

    async def test_completion_ends_the_record(self, log: EventLog) -> None:
        """The record of a completed analysis has its state, time, terminal payload and text."""
        name = await begun(log)
        log.append(name, token(" r"))
        end = log.append(name, completed(" red and the rest"))
        await kept(log, name, 2)

        found = await log.get(name)

        assert (found.state, found.text, found.terminal) == (State.COMPLETED, " red and the rest", end.payload)
        assert found.end_time_s == pytest.approx(end.create_time.timestamp(), abs=1e-5)

    @pytest.mark.parametrize(
        ("payload", "state"), [(CANCELLED, State.CANCELLED), (FAILED, State.FAILED)], ids=["cancelled", "failed"]
    )
    async def test_a_broken_off_analysis_keeps_its_text(self, log: EventLog, payload: Failed, state: State) -> None:
        """A failed or cancelled analysis keeps what its tokens said."""
        name = await begun(log)
        for part in (token(" red"), PROGRESS, token(" and"), token(" blue")):
            log.append(name, part)
        log.append(name, payload)
        await kept(log, name, 5)

        found = await log.get(name)

        assert (found.state, found.text) == (state, " red and blue")
        assert found.terminal is not None
        assert type(found.terminal) is type(payload)

    async def test_the_unknown_is_not_found(self, log: EventLog) -> None:
        """Everything that is asked by name raises KeyError where there is none."""
        name = "analyses/none"
        for call in (log.get(name), log.images(name), log.put_pictures(name, ()), log.cancel(name), log.delete(name)):
            with pytest.raises(KeyError):
                await call
        with pytest.raises(KeyError):
            await log.release(OWNER, name)


class TestRequestIds:
    """The caller's own names of requests."""

    async def test_a_taken_request_id_gives_the_first_record(self, log: EventLog) -> None:
        """A second analysis of the same request id is refused, with the record of the first."""
        first = record(request_id="r")
        await begun(log, first)

        with pytest.raises(RequestIdTaken) as refusal:
            await begun(log, record(request_id="r"))

        assert refusal.value.record.name == first.name

    async def test_request_ids_belong_to_their_callers(self, log: EventLog) -> None:
        """Two callers can use one id, and find their own."""
        names = [await begun(log, record(caller=caller, request_id="r")) for caller in ("ann", "bob")]

        found = [await log.find(caller, "r") for caller in ("ann", "bob", "eve")]

        assert [each and each.name for each in found] == [*names, None]

    async def test_the_empty_request_id_is_none(self, log: EventLog) -> None:
        """Analyses without a request id neither collide nor are found by it."""
        await begun(log)
        await begun(log)

        assert await log.find("local", "") is None

    async def test_of_many_at_once_one_wins(self, log: EventLog) -> None:
        """Of fifty creations with one request id, one succeeds and the others are told which."""
        new = [record(request_id="r") for _ in range(50)]

        results = await asyncio.gather(*(begun(log, each) for each in new), return_exceptions=True)

        winners = [result for result in results if isinstance(result, str)]
        told = [result.record.name for result in results if isinstance(result, RequestIdTaken)]
        assert len(winners) == 1
        assert told == winners * 49
        assert len(await log.list("local", ())) == 1

    async def test_request_ids_outlive_the_log(self, log: EventLog, store: Store) -> None:
        """A request id is still taken after the log was opened again."""
        await begun(log, record(request_id="r"))
        await log.close()

        again = await store.open()
        with pytest.raises(RequestIdTaken):
            await begun(again, record(request_id="r"))
        await again.close()


class TestImages:
    """Images live until the end."""

    async def test_pictures_replace_files(self, log: EventLog) -> None:
        """What is kept are the files, and from normalisation on the pictures."""
        name = await begun(log, files=(b"first file", b""))
        before = await log.images(name)

        await log.put_pictures(name, [picture(), picture(5, 5)])

        assert before == Images(files=(b"first file", b""))
        assert await log.images(name) == Images(pictures=(picture(), picture(5, 5)))

    async def test_the_end_deletes_images(self, log: EventLog) -> None:
        """With the terminal event the images are gone, and later ones are not kept."""
        name = await begun(log, files=(b"file",))
        await log.put_pictures(name, [picture()])
        log.append(name, CANCELLED)
        await kept(log, name, 1)

        await log.put_pictures(name, [picture()])

        assert await log.images(name) == Images()

    async def test_images_can_be_kept(self, store: Store) -> None:
        """A store that is told to keep images keeps them to their expiry."""
        log = await store.open(keep_images=True)
        name = await begun(log, files=(b"file",))
        await log.put_pictures(name, [picture()])
        log.append(name, CANCELLED)
        await kept(log, name, 1)

        after_end = await log.images(name)
        await log.expire(ended_before_s=time.time() + 1, keep_bytes=NOTHING_TOO_LARGE)
        after_expiry = await log.images(name)
        await log.close()

        assert after_end == Images(pictures=(picture(),))
        assert after_expiry == Images()


class TestListing:
    """A caller's analyses, newest first."""

    async def test_the_newest_comes_first(self, log: EventLog) -> None:
        """A list holds the caller's records only, by arrival."""
        mine = [await begun(log, record(caller=caller)) for caller in ("ann", "bob") * 3][::2]

        listed = await log.list("ann", ())

        assert [each.name for each in listed] == mine[::-1]
        assert [each.number for each in listed] == sorted((each.number for each in listed), reverse=True)

    async def test_pages_follow_each_other(self, log: EventLog) -> None:
        """A page begins after the number of the last record of the page before."""
        names = [await begun(log) for _ in range(7)][::-1]

        first = await log.list("local", (), limit=3)
        second = await log.list("local", (), before_number=first[-1].number, limit=3)
        third = await log.list("local", (), before_number=second[-1].number, limit=3)

        assert [each.name for each in (*first, *second, *third)] == names

    async def test_a_page_after_a_deleted_record(self, log: EventLog) -> None:
        """The number of a record is a place that outlasts it."""
        names = [await ended(log) for _ in range(4)][::-1]
        page = await log.list("local", (), limit=2)
        for each in page:
            await log.delete(each.name)

        rest = await log.list("local", (), before_number=page[-1].number)

        assert [each.name for each in rest] == names[2:]

    async def test_states_are_filtered(self, log: EventLog) -> None:
        """Any set of states can be asked for; the pages hold only these."""
        active = [await begun(log) for _ in range(2)]
        done = [await ended(log) for _ in range(2)]
        gone = await begun(log)
        log.append(gone, CANCELLED)
        await kept(log, gone, 1)

        async def names(*states: State) -> list[str]:
            return [each.name for each in await log.list("local", states)]

        assert await names(State.ACTIVE) == active[::-1]
        assert await names(State.COMPLETED, State.CANCELLED) == [gone, *done[::-1]]
        assert await names(State.FAILED) == []
        assert [each.name for each in await log.list("local", (State.ACTIVE, State.COMPLETED), limit=3)] == [
            *done[::-1],
            active[1],
        ]


class TestHolding:
    """Leases, and the wish to cancel."""

    async def test_a_creator_holds_what_it_creates(self, log: EventLog) -> None:
        """What is held is not claimed by others."""
        await begun(log)

        assert await log.claim("server-2", lease_s=LEASE_S) == []

    async def test_what_is_released_can_be_claimed(self, log: EventLog) -> None:
        """A released analysis goes to the next who asks, once."""
        name = await begun(log)
        await log.release(OWNER, name)

        claimed = await log.claim("server-2", lease_s=LEASE_S)

        assert [each.name for each in claimed] == [name]
        assert await log.claim("server-3", lease_s=LEASE_S) == []

    async def test_only_the_owner_releases(self, log: EventLog) -> None:
        """Releasing what another holds changes nothing."""
        name = await begun(log)

        await log.release("server-2", name)

        assert await log.claim("server-2", lease_s=LEASE_S) == []

    async def test_leases_run_out_unless_renewed(self, log: EventLog) -> None:
        """Without a heartbeat an analysis becomes free; with one it stays."""
        names = [record().name for _ in range(2)]
        for name, owner in zip(names, ("fast", "slow"), strict=True):
            await log.create(record(name), (), owner=owner, lease_s=0.2)

        await log.heartbeat("fast", lease_s=LEASE_S)
        await asyncio.sleep(0.25)  # the lease's own time

        assert [each.name for each in await log.claim("other", lease_s=LEASE_S)] == [names[1]]

    async def test_a_restart_frees_what_is_active(self, log: EventLog, store: Store) -> None:
        """After the log was opened again, active analyses are claimed oldest first, and go on with the next number."""
        names = [await begun(log) for _ in range(3)]
        await ended(log)
        for name in names:
            log.append(name, ACCEPTED)
        await log.close()

        again = await store.open()
        claimed = await again.claim("server-2", lease_s=LEASE_S)
        event = again.append(names[0], token())
        await kept(again, names[0], 2)
        found = await everything(again, names[0])
        await again.close()

        assert [each.name for each in claimed] == names
        assert event.sequence == 2
        assert payloads(found) == [ACCEPTED, token()]

    async def test_an_ended_analysis_is_not_claimed(self, log: EventLog) -> None:
        """Not even before its end is kept."""
        name = await begun(log)
        await log.release(OWNER, name)
        log.append(name, CANCELLED)

        assert await log.claim("server-2", lease_s=LEASE_S) == []

    async def test_the_holder_learns_of_a_wish_to_cancel(self, log: EventLog) -> None:
        """Heartbeats name what is to be cancelled until it has ended."""
        names = [await begun(log) for _ in range(2)]
        await log.cancel(names[1])

        assert list(await log.heartbeat(OWNER, lease_s=LEASE_S)) == [names[1]]
        assert list(await log.heartbeat("server-2", lease_s=LEASE_S)) == []
        log.append(names[1], CANCELLED)
        await kept(log, names[1], 1)
        assert list(await log.heartbeat(OWNER, lease_s=LEASE_S)) == []

    async def test_a_wish_to_cancel_outlives_the_log(self, log: EventLog, store: Store) -> None:
        """Whoever claims the analysis after a restart is told."""
        name = await begun(log)
        await log.cancel(name)
        await log.close()

        again = await store.open()
        await again.claim("server-2", lease_s=LEASE_S)
        wanted = await again.heartbeat("server-2", lease_s=LEASE_S)
        await again.close()

        assert list(wanted) == [name]

    async def test_cancelling_an_ended_analysis_does_nothing(self, log: EventLog) -> None:
        """It stays as it ended."""
        name = await ended(log)

        await log.cancel(name)

        assert (await log.get(name)).state is State.COMPLETED
        assert list(await log.heartbeat(OWNER, lease_s=LEASE_S)) == []


class TestDeleting:
    """Deletion by name."""

    async def test_nothing_is_left_of_a_deleted_analysis(self, log: EventLog) -> None:
        """Record, events, request id and place in lists are gone."""
        other = await ended(log)
        name = await ended(log, record(request_id="r"))

        await log.delete(name)

        with pytest.raises(KeyError):
            await log.get(name)
        with pytest.raises(KeyError):
            await log.read(name, 0)
        assert await log.find("local", "r") is None
        assert [each.name for each in await log.list("local", ())] == [other]
        await begun(log, record(request_id="r"))

    async def test_a_deleted_active_analysis_takes_no_events(self, log: EventLog) -> None:
        """An active analysis can be deleted; what is appended before goes with it, and nothing comes after."""
        name = await begun(log)
        log.append(name, ACCEPTED)
        deletion = asyncio.create_task(log.delete(name))
        await asyncio.sleep(0)

        with pytest.raises(KeyError):
            log.append(name, token())
        await deletion
        with pytest.raises(KeyError):
            log.append(name, token())


class TestExpiring:
    """Retention by age and by size."""

    async def test_the_too_old_expire(self, log: EventLog) -> None:
        """Of an expired analysis the record stays, without spec and text; reading it raises EventsExpired."""
        name = await ended(log)
        before = await log.get(name)

        names = await log.expire(ended_before_s=time.time() + 1, keep_bytes=NOTHING_TOO_LARGE)

        after = await log.get(name)
        assert list(names) == [name]
        assert isinstance(before.terminal, Completed)
        assert after == msgspec.structs.replace(
            before, expired=True, spec=b"", text="", terminal=msgspec.structs.replace(before.terminal, text="")
        )
        with pytest.raises(EventsExpired):
            await log.read(name, 0)
        with pytest.raises(EventsExpired):
            await log.wait(name, 0)

    async def test_the_young_and_the_active_stay(self, log: EventLog) -> None:
        """Nothing expires that is active, or that ended after the time."""
        active, done = await begun(log), await ended(log)

        assert list(await log.expire(ended_before_s=LONG_AGO_S, keep_bytes=NOTHING_TOO_LARGE)) == []
        assert list(await log.expire(ended_before_s=time.time() + 1, keep_bytes=0)) == [done]
        assert (await log.get(active)).expired is False

    async def test_the_oldest_expire_beyond_a_size(self, log: EventLog) -> None:
        """As many of the oldest expire as it takes to come down to the size."""
        names = [await ended(log, tokens=50) for _ in range(6)]

        none = await log.expire(ended_before_s=LONG_AGO_S, keep_bytes=6 * 50 * 400)
        some = await log.expire(ended_before_s=LONG_AGO_S, keep_bytes=20_000)
        rest = await log.expire(ended_before_s=LONG_AGO_S, keep_bytes=0)

        assert list(none) == []
        assert 0 < len(some) < 6
        assert [*some, *rest] == names

    async def test_more_than_one_step_is_taken(self, log: EventLog) -> None:
        """All that is too old expires in one call, however many small transactions it takes."""
        names = [await ended(log, tokens=1) for _ in range(120)]

        assert list(await log.expire(ended_before_s=time.time() + 1, keep_bytes=NOTHING_TOO_LARGE)) == names

    async def test_expired_records_are_forgotten_in_the_end(self, log: EventLog) -> None:
        """A record that expired before is deleted when it ended before the time twice over."""
        name = await ended(log, record(request_id="r"))
        hour_s = 3600.0
        await log.expire(ended_before_s=time.time() + hour_s, keep_bytes=NOTHING_TOO_LARGE)

        # Ended a second ago; forgotten where twice the age is less than that.
        await log.expire(ended_before_s=time.time() - hour_s, keep_bytes=NOTHING_TOO_LARGE)
        assert (await log.get(name)).expired is True
        await log.expire(ended_before_s=time.time() + 2 * hour_s, keep_bytes=NOTHING_TOO_LARGE)

        with pytest.raises(KeyError):
            await log.get(name)
        assert await log.find("local", "r") is None

    async def test_expiry_wakes_watchers(self, log: EventLog) -> None:
        """Whoever waits behind the end of an expired analysis is let go."""
        name = await ended(log)
        waiting = asyncio.create_task(log.wait(name, 4))
        await asyncio.sleep(0.02)

        await log.expire(ended_before_s=time.time() + 1, keep_bytes=NOTHING_TOO_LARGE)

        await asyncio.wait_for(waiting, 10)


class TestClosing:
    """The end of a log's life."""

    async def test_closing_keeps_what_was_appended(self, log: EventLog, store: Store) -> None:
        """What was appended before is there afterwards, seen or not."""
        name = await begun(log)
        for index in range(5000):
            log.append(name, token(index=index))
        await log.close()

        again = await store.open()
        found = await everything(again, name)
        await again.close()

        assert [event.sequence for event in found] == list(range(1, 5001))

    async def test_a_closed_log_refuses(self, log: EventLog) -> None:
        """A closed log is not available, answers nothing, and lets waiters go; closing twice is harmless."""
        name = await begun(log)
        waiting = asyncio.create_task(log.wait(name, 0))
        await asyncio.sleep(0)
        await log.close()
        await log.close()

        with pytest.raises(LogUnavailable):
            await waiting
        with pytest.raises(LogUnavailable):
            await log.get(name)
        with pytest.raises(ValueError, match="closed"):
            log.append(name, token())
        assert log.available is False

    async def test_a_cancelled_creation_leaves_nothing_held(self, log: EventLog) -> None:
        """A creation whose caller has gone either never happened, or can be claimed."""
        new = record()
        creation = asyncio.create_task(log.create(new, (), owner=OWNER, lease_s=LEASE_S))
        await asyncio.sleep(0)
        creation.cancel()
        await asyncio.gather(creation, return_exceptions=True)
        await begun(log)

        there = [each.name for each in await log.list("local", ())]
        claimed = [each.name for each in await log.claim("server-2", lease_s=LEASE_S)]
        assert claimed == [name for name in there if name == new.name]

    async def test_the_log_is_available(self, log: EventLog) -> None:
        """A healthy log says so."""
        await eventually(lambda: log.available)
