"""What befalls the file of an SQLite log in use: nothing unkept is shown, nothing is lost or doubled."""

import asyncio
import random
import shutil
import signal
from collections import defaultdict
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from mondrian_server.errors import LogUnavailable
from mondrian_server.log.interface import State
from mondrian_server.log.sqlite import SqliteLog, SqliteOptions
from tests.conditions import eventually
from tests.log.files import child, contents, overwrite, replace_text
from tests.log.programs.writing import LENGTH
from tests.log.samples import CANCELLED, begun, completed, ended, everything, kept, record, token


class Opened:
    """A log in a folder, with what it has told about its availability."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.db"
        self.changes: list[bool] = []
        self.log: SqliteLog

    async def open(self, max_file_bytes: int = 0) -> SqliteLog:
        """Open the log, or open it again."""
        options = SqliteOptions(retry_s=0.02, retry_max_s=0.1, idle_s=0.1, max_file_bytes=max_file_bytes)
        self.log = await SqliteLog.open(self.path, options, on_availability=self.changes.append)
        return self.log


@pytest_asyncio.fixture
async def opened(tmp_path: Path) -> AsyncGenerator[Opened]:
    """An opened log; the end closes it."""
    opened = Opened(tmp_path)
    await opened.open()
    yield opened
    await opened.log.close()


class TestFullDisk:
    """No room, and room again."""

    async def test_events_wait_for_room(self, opened: Opened) -> None:
        """Without room, events are numbered but not shown; when there is room again they all are, in order."""
        await opened.log.close()
        log = await opened.open(max_file_bytes=400_000)
        old = await ended(log, tokens=1000)
        names = [await begun(log) for _ in range(3)]

        sent = await _fill(log, names)
        hidden = [sent - len(await everything(log, name)) for name in names]
        with pytest.raises(LogUnavailable):
            await begun(log)
        assert (await log.get(names[0])).state is State.ACTIVE
        await log.delete(old)
        await eventually(lambda: log.available)
        for name in names:
            log.append(name, completed("all"))
            await kept(log, name, sent + 1)

        assert all(hidden)
        assert opened.changes == [False, True]
        for name in names:
            assert [event.sequence for event in await everything(log, name)] == list(range(1, sent + 2))
        await log.close()
        again = await opened.open()
        assert [len(await everything(again, name)) for name in names] == [sent + 1] * 3

    async def test_expiry_makes_room(self, opened: Opened) -> None:
        """Retention works on a full disk, and ends the fault by itself."""
        await opened.log.close()
        log = await opened.open(max_file_bytes=400_000)
        old = await ended(log, tokens=1000)
        name = await begun(log)
        sent = await _fill(log, [name])

        expired = await log.expire(ended_before_s=0.0, keep_bytes=0)

        assert list(expired) == [old]
        await eventually(lambda: log.available)
        await kept(log, name, sent)

    async def test_a_deleted_analysis_takes_its_waiting_events_along(self, opened: Opened) -> None:
        """Events of an analysis that is deleted while there is no room are not written afterwards."""
        await opened.log.close()
        log = await opened.open(max_file_bytes=300_000)
        names = [await begun(log) for _ in range(2)]
        await _fill(log, names)

        await log.delete(names[0])

        await eventually(lambda: log.available)
        with pytest.raises(KeyError):
            await log.get(names[0])
        other = await begun(log)
        assert await everything(log, other) == []

    async def test_closing_without_room_keeps_what_was_shown(self, opened: Opened) -> None:
        """What was shown is there afterwards; what was not is a gap-free rest, missing at the end only."""
        await opened.log.close()
        log = await opened.open(max_file_bytes=300_000)
        name = await begun(log)
        sent = await _fill(log, [name])
        shown = len(await everything(log, name))
        await log.close()

        again = await opened.open()
        found = [event.sequence for event in await everything(again, name)]

        assert found == list(range(1, shown + 1))
        assert shown < sent

    def test_a_limit_on_files_is_survived_too(self, tmp_path: Path) -> None:
        """Where the system refuses to write, as it does with a limit or a quota, the same holds."""
        with child("confined", str(tmp_path / "events.db")) as process:
            said = process.communicate(timeout=60)[0].splitlines()

        assert said[-1] == "True True True [False, True]"


class TestLostFile:
    """The file is removed or replaced while it is open."""

    @pytest.mark.parametrize("what", ["events.db", "events.db-wal"])
    async def test_a_removed_file_is_noticed(self, opened: Opened, what: str) -> None:
        """Within moments the log is unavailable, shows nothing new, and says so to everybody."""
        log = opened.log
        name = await begun(log)
        log.append(name, token())
        await kept(log, name, 1)
        opened.path.with_name(what).unlink()

        await eventually(lambda: not log.available)
        log.append(name, token())
        with pytest.raises(LogUnavailable):
            await begun(log)
        with pytest.raises(LogUnavailable):
            await log.get(name)
        with pytest.raises(LogUnavailable):
            await log.delete(name)

        assert len(await log.read(name, 0)) == 1
        assert opened.changes == [False]

    async def test_nobody_waits_for_what_cannot_come(self, opened: Opened) -> None:
        """Whoever waits for the next event when the file is lost is told, and so is whoever comes to wait later."""
        log = opened.log
        name = await begun(log)
        log.append(name, token())
        await kept(log, name, 1)
        waiting = asyncio.create_task(log.wait(name, 1))
        await asyncio.sleep(0)
        opened.path.unlink()
        for _ in range(2):
            with pytest.raises(LogUnavailable) as caught:
                await asyncio.wait_for(waiting, 20)
            assert caught.value.retry_after_s is not None
            waiting = asyncio.create_task(log.wait(name, 1))
        waiting.cancel()

    async def test_a_creation_does_not_go_into_a_removed_file(self, opened: Opened) -> None:
        """There is no moment in which an analysis is created in a file that is gone."""
        opened.path.unlink()

        with pytest.raises(LogUnavailable):
            await begun(opened.log)

    async def test_a_replaced_file_is_left_alone(self, opened: Opened, tmp_path: Path) -> None:
        """A file that is put in the place of the open one is neither written to nor removed."""
        log = opened.log
        old = await ended(log)
        await log.close()
        backup = tmp_path / "backup"
        shutil.copy(opened.path, backup)
        log = await opened.open()
        name = await begun(log)
        opened.path.with_name("events.db-wal").unlink()
        backup.replace(opened.path)
        before = opened.path.read_bytes()

        await eventually(lambda: not log.available)
        log.append(name, token())
        await log.close()

        assert opened.path.read_bytes() == before
        again = await opened.open()
        assert [each.name for each in await again.list("local", ())] == [old]

    async def test_what_a_removed_write_ahead_log_held_is_rescued(self, opened: Opened) -> None:
        """Where only the write-ahead log was removed, what had been shown is there after a restart."""
        name = await begun(opened.log)
        for index in range(50):
            opened.log.append(name, token(index=index))
        await kept(opened.log, name, 50)
        opened.path.with_name("events.db-wal").unlink()
        await eventually(lambda: not opened.log.available)
        await opened.log.close()

        again = await opened.open()

        assert len(await everything(again, name)) == 50


class TestDamage:
    """Bytes of the file are overwritten while it is open, or were and are met later."""

    async def test_a_damaged_page_makes_the_log_unavailable(self, opened: Opened) -> None:
        """When SQLite meets a damaged page, nothing more is written."""
        log = opened.log
        names = [await ended(log, tokens=200) for _ in range(10)]
        await log.close()
        log = await opened.open()
        overwrite(opened.path, 8 * 4096, opened.path.stat().st_size - 8 * 4096)

        with pytest.raises(LogUnavailable):
            await asyncio.gather(*(log.read(name, 0) for name in names))

        await eventually(lambda: not log.available)
        with pytest.raises(LogUnavailable):
            await begun(log)
        assert opened.changes == [False]

    async def test_a_changed_text_is_not_shown(self, opened: Opened) -> None:
        """Where the file's structure is whole but an event's bytes are not, that event is not shown as true."""
        log = opened.log
        damaged, whole = await begun(log), await ended(log)
        log.append(damaged, token(" ultramarine"))
        log.append(damaged, completed(" ultramarine"))
        await kept(log, damaged, 2)
        await log.close()
        replace_text(opened.path, b"ultramarine", b"ultramarina")

        again = await opened.open()
        with pytest.raises(LogUnavailable):
            await again.read(damaged, 0)
        with pytest.raises(LogUnavailable):
            await again.get(damaged)

        assert len(await again.read(whole, 0)) == 4
        assert [each.name for each in await again.list("local", ())] == [whole]
        assert again.available
        await again.delete(damaged)

    async def test_a_damaged_active_analysis_bars_nobody(self, opened: Opened) -> None:
        """An active analysis whose record is damaged is not claimed; the others are."""
        damaged, whole = await begun(opened.log, record(spec=b"ultramarine")), await begun(opened.log)
        await opened.log.close()
        replace_text(opened.path, b"ultramarine", b"ultramarina")

        again = await opened.open()
        claimed = await again.claim("server-2", lease_s=60)

        assert [each.name for each in claimed] == [whole]
        with pytest.raises(LogUnavailable):
            await again.get(damaged)

    async def test_a_damaged_image_is_not_shown(self, opened: Opened) -> None:
        """A picture whose pixels were changed is not handed out."""
        name = await begun(opened.log, files=(b"ultramarine",))
        await opened.log.close()
        replace_text(opened.path, b"ultramarine", b"ultramarina")

        again = await opened.open()

        with pytest.raises(LogUnavailable):
            await again.images(name)

    async def test_an_analysis_with_a_damaged_event_can_end(self, opened: Opened) -> None:
        """The end is kept; of the text, what can be read."""
        name = await begun(opened.log)
        for text in (" red", " ultramarine", " blue"):
            opened.log.append(name, token(text))
        await opened.log.close()
        replace_text(opened.path, b"ultramarine", b"ultramarina")

        again = await opened.open()
        again.append(name, CANCELLED)
        await kept(again, name, 4)

        assert (await again.get(name)).text == " red blue"


class TestKill:
    """The process dies."""

    async def test_what_was_seen_outlives_a_kill(self, tmp_path: Path) -> None:
        """Killed at random moments and opened again, the log holds whole prefixes, with all that anybody had seen."""
        path = tmp_path / "events.db"
        chance = random.Random(20261120)
        seen: defaultdict[str, int] = defaultdict(int)
        for _ in range(4):
            with child("writing", str(path)) as writer:
                assert writer.stdout is not None
                lines = [writer.stdout.readline() for _ in range(chance.randrange(20, 2000))]
                writer.send_signal(signal.SIGKILL)
                for line in (*lines, *writer.stdout):
                    name, sequence = line.split()
                    seen[name] = int(sequence)

        log = await SqliteLog.open(path)
        kept_events = {name: await everything(log, name) for name in seen}
        states = {name: (await log.get(name)).state for name in seen}
        await log.close()

        assert list(contents(tmp_path)) == ["events.db"]
        assert max(map(len, kept_events.values())) > 100
        for name, events in kept_events.items():
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert len(events) >= seen[name]
            assert (states[name] is State.COMPLETED) == (len(events) == LENGTH + 1)


async def test_a_defect_of_one_operation_harms_nobody(opened: Opened) -> None:
    """An operation that SQLite cannot carry out fails alone; what runs beside it goes through."""
    log = opened.log
    impossible = record(spec=b"x")
    name = await begun(log)
    unstorable = record("analyses/\ud800")

    results = await asyncio.gather(begun(log, unstorable), begun(log, impossible), return_exceptions=True)
    log.append(name, token())
    await kept(log, name, 1)

    assert isinstance(results[0], UnicodeEncodeError)
    assert results[1] == impossible.name
    assert log.available


async def _fill(log: SqliteLog, names: list[str]) -> int:
    """Append to each until the log is unavailable; return the last sequence."""
    sequence = 0
    while log.available:
        for name in names:
            sequence = log.append(name, token("x" * 200, sequence)).sequence
        await asyncio.sleep(0.001)
    for name in names:
        sequence = log.append(name, token("x" * 200, sequence)).sequence
    return sequence
