"""The supervisor: an engine that dies, hangs, lies or cannot load is replaced, and everybody is told."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Literal

import msgspec
import psutil
import pytest
import structlog

from mondrian_server.child import count_oom_kills
from mondrian_server.engine.interface import EngineState, EngineStatus
from mondrian_server.engine.protocol import EngineConfig, RowDone, RowSampling, RowTokens, RowUpdate, Step, Submit
from mondrian_server.engine.supervisor import EngineSupervisor, SupervisionLimits
from mondrian_server.errors import StartupError
from mondrian_server.pictures import Picture
from tests.conditions import eventually
from tests.scripted_engine import Fault, Life, command, starts

CONFIG = EngineConfig(model="scripted", slots=4, prefill_step_tokens=512, beat_interval_s=0.05)
LIMITS = SupervisionLimits(
    beat_timeout_s=1.0, operation_limit_s=0.5, load_limit_s=20.0, backoff_s=0.05, backoff_max_s=0.2
)


class Diary:
    """An `EngineListener` that writes down what it hears."""

    def __init__(self) -> None:
        """Start empty."""
        self.statuses: list[EngineStatus] = []
        self.updates: list[RowUpdate] = []
        self.losses = 0
        self._news = asyncio.Event()

    @property
    def states(self) -> list[EngineState]:
        """The states, each run of one state once."""
        states = [status.state for status in self.statuses]
        return [state for index, state in enumerate(states) if index == 0 or state != states[index - 1]]

    def engine_changed(self, status: EngineStatus) -> None:
        """Write down a status."""
        self.statuses.append(status)
        self._news.set()

    def engine_step(self, step: Step) -> None:
        """Write down the updates."""
        self.updates += step.rows
        self._news.set()

    def engine_lost(self) -> None:
        """Count a loss."""
        self.losses += 1
        self._news.set()

    async def until(self, condition: Callable[["Diary"], bool], *, within_s: float = 20.0) -> None:
        """Wait until what was written down fulfils a condition."""
        async with asyncio.timeout(within_s):
            while not condition(self):
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def supervised(
    *lives: Life, folder: Path, limits: SupervisionLimits = LIMITS, config: EngineConfig = CONFIG
) -> AsyncGenerator[tuple[EngineSupervisor, Diary, asyncio.Task[None]]]:
    """Run a supervisor over a scripted engine; at the end no process may be left."""
    supervisor = EngineSupervisor(config, limits, command=command(lives, folder / "starts"))
    diary = Diary()
    supervisor.listen(diary)
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor, diary, task
    finally:
        task.cancel()
        await asyncio.wait((task,), timeout=10)
        assert task.done(), "the supervisor does not end"
        assert not processes(folder), "an engine was left behind"


def processes(folder: Path) -> list[psutil.Process]:
    """Return this process's children that live by a script of `folder`."""
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if child.status() == psutil.STATUS_ZOMBIE]
    return [child for child in children if str(folder / "starts") in child.cmdline()]


def submission(row: int, *, pictures: tuple[Picture, ...] = ()) -> Submit:
    """Return a row to generate."""
    sampling = RowSampling(
        max_tokens=None,
        default_max_tokens=512,
        min_tokens=0,
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        repetition_penalty=1.0,
        seed=1,
        stop=(),
    )
    return Submit(row=row, instructions="", prompt="?", pictures=pictures, sampling=sampling, cache_scope="local")


def is_ready(diary: Diary) -> bool:
    """Return whether the engine is ready now."""
    return diary.statuses[-1:] != [] and diary.statuses[-1].state is EngineState.READY


def is_replaced(diary: Diary) -> bool:
    """Return whether a second engine became ready after the loss of one."""
    return diary.losses == 1 and is_ready(diary)


async def test_a_model_loads_with_byte_counts_and_rows_pass_both_ways(tmp_path: Path) -> None:
    """Loading is told byte by byte; then each submitted row gives its tokens and one closing update."""
    async with supervised(Life(tokens=3, load_bytes=800), folder=tmp_path) as (supervisor, diary, _):
        await diary.until(is_ready)
        loaded = [status.loading.done_bytes for status in diary.statuses if status.loading]
        assert loaded == [0, 200, 400, 600]
        assert supervisor.status.model is not None and supervisor.status.model.architecture == "scripted"
        supervisor.submit(submission(7))
        await diary.until(lambda diary: any(isinstance(update, RowDone) for update in diary.updates))
        tokens = [update.text for update in diary.updates if isinstance(update, RowTokens)]
        assert tokens == ["t1 ", "t2 ", "t3 "]
        assert supervisor.status.peak_memory_bytes == 4096
        assert supervisor.status.slots_in_use == 0


@pytest.mark.parametrize(
    ("what", "limits"),
    [
        pytest.param("silence", LIMITS, id="beats stop"),
        pytest.param("hang", LIMITS, id="an operation outlasts its limit"),
        pytest.param("crash", LIMITS, id="killed"),
        pytest.param("exit", LIMITS, id="exits"),
        pytest.param("garbage", LIMITS, id="no frames"),
    ],
)
async def test_a_lost_engine_is_replaced(
    what: Literal["silence", "hang", "crash", "exit", "garbage"], limits: SupervisionLimits, tmp_path: Path
) -> None:
    """Whatever becomes of a ready engine, the listeners hear DOWN and a loss, and a new one is started."""
    faulty = Life(tokens=1000, fault=Fault(what=what, at="tokens", tokens=2))
    async with supervised(faulty, Life(), folder=tmp_path, limits=limits) as (supervisor, diary, _):
        await diary.until(is_ready)
        first_pid = supervisor.pid
        supervisor.submit(submission(1))
        await diary.until(is_replaced)
        assert diary.states == [
            EngineState.LOADING,
            EngineState.READY,
            EngineState.DOWN,
            EngineState.LOADING,
            EngineState.READY,
        ]
        assert supervisor.pid != first_pid
        assert supervisor.restarts == 1
        down = next(status for status in diary.statuses if status.state is EngineState.DOWN)
        assert (down.slots_in_use, down.loading) == (0, None)
        assert down.model is not None, "what is known of the model stays known"
        can_tell = count_oom_kills() is not None
        assert down.killed_from_outside == (what == "crash" and can_tell), "only a SIGKILL of others' is nobody's fault"
        assert starts(tmp_path / "starts") == 2
        assert [child.pid for child in processes(tmp_path)] == [supervisor.pid]


async def test_an_engine_that_is_stopped_is_replaced_though_it_takes_nothing(tmp_path: Path) -> None:
    """A stopped engine that leaves megabytes of pictures unread is killed all the same."""
    async with supervised(Life(), folder=tmp_path) as (supervisor, diary, _):
        await diary.until(is_ready)
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGSTOP)
        pixels = bytes(8 * 1024 * 1024)
        picture = Picture(width=2048, height=1365, pixels=pixels, digest=b"")
        supervisor.submit(submission(1, pictures=(picture,)))
        await diary.until(is_replaced)


async def test_a_supervisor_ends_while_a_stopped_engine_takes_nothing(tmp_path: Path) -> None:
    """The end of the server does not wait for what a stopped engine has not read."""
    limits = SupervisionLimits(beat_timeout_s=60.0)
    async with supervised(Life(), folder=tmp_path, limits=limits) as (supervisor, diary, _):
        await diary.until(is_ready)
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGSTOP)
        picture = Picture(width=2048, height=1365, pixels=bytes(8 * 1024 * 1024), digest=b"")
        supervisor.submit(submission(1, pictures=(picture,)))


async def test_an_idle_engine_may_be_idle_for_ever(tmp_path: Path) -> None:
    """Waiting for work is not an operation that has a limit."""
    limits = SupervisionLimits(beat_timeout_s=5.0, operation_limit_s=0.1)
    async with supervised(Life(step_s=1000.0), folder=tmp_path, limits=limits) as (supervisor, diary, _):
        await diary.until(is_ready)
        await eventually(lambda: supervisor.beat.operation_s > 0.5)
        assert supervisor.beat.operation == "idle"
        assert diary.losses == 0


async def test_an_idle_engine_that_holds_a_row_is_hung(tmp_path: Path) -> None:
    """One that does nothing for a row is replaced at the operation limit, counted from the row and not before."""
    limits = SupervisionLimits(beat_timeout_s=5.0, operation_limit_s=0.3, backoff_s=0.05)
    loop = asyncio.get_running_loop()
    async with supervised(Life(step_s=1000.0), Life(), folder=tmp_path, limits=limits) as (supervisor, diary, _):
        await diary.until(is_ready)
        await eventually(lambda: supervisor.beat.operation_s > 0.4)
        submitted_at = loop.time()
        supervisor.submit(submission(1))
        await diary.until(lambda diary: diary.losses == 1)
        assert loop.time() - submitted_at >= 0.3
        await diary.until(is_replaced)


async def test_a_halt_of_the_server_is_not_taken_for_silence_of_the_engine(tmp_path: Path) -> None:
    """After the event loop stood still for longer than the beat timeout, the engine is still the same."""
    limits = SupervisionLimits(beat_timeout_s=1.0, operation_limit_s=60.0)
    async with supervised(Life(), folder=tmp_path, limits=limits) as (supervisor, diary, _):
        await diary.until(is_ready)
        pid, beat = supervisor.pid, supervisor.beat
        time.sleep(1.5)  # noqa: ASYNC251  # the loop is to stand still, as that of a stopped process does
        await eventually(lambda: supervisor.beat is not beat)
        assert diary.losses == 0
        assert supervisor.pid == pid


async def test_a_load_that_outlasts_its_limit_is_ended_though_the_engine_beats(tmp_path: Path) -> None:
    """The load limit counts from the start, however many operations the load has."""
    limits = SupervisionLimits(load_limit_s=1.0, backoff_s=0.05)
    async with supervised(Life(load_s=60.0), Life(), folder=tmp_path, limits=limits) as (_, diary, _):
        await diary.until(lambda diary: diary.losses == 1)
        assert EngineState.READY not in diary.states


@pytest.mark.parametrize("trusted", [True, False])
async def test_trust_in_a_models_own_code_is_said_loudly(trusted: bool, tmp_path: Path) -> None:
    """A warning tells of it at the start, and only where it is so."""
    config = msgspec.structs.replace(CONFIG, trust_remote_code=trusted)
    with structlog.testing.capture_logs() as lines:
        async with supervised(Life(), folder=tmp_path, config=config) as (_, diary, _):
            await diary.until(is_ready)
    warnings = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert [("trust_remote_code" in line) for line in warnings] == [True] * trusted


async def test_a_download_that_goes_on_is_no_load_that_lasts(tmp_path: Path) -> None:
    """The load limit counts from the last bytes that were downloaded; a download that stands still is ended by it."""
    limits = SupervisionLimits(load_limit_s=2.0, backoff_s=0.05)
    steady = Life(load_s=5.0, load_frames=10, downloads=True)
    async with supervised(steady, folder=tmp_path, limits=limits) as (_, diary, _):
        await diary.until(is_ready)
        assert diary.losses == 0
    stuck = Life(load_s=120.0, load_frames=2, downloads=True)
    async with supervised(stuck, folder=tmp_path, limits=limits) as (_, diary, _):
        await diary.until(lambda diary: diary.losses == 1)


async def test_an_engine_that_is_silent_from_its_start_is_ended_at_the_load_limit(tmp_path: Path) -> None:
    """An engine that never beats has until the load limit."""
    limits = SupervisionLimits(load_limit_s=1.5, beat_timeout_s=0.4, backoff_s=0.05)
    fault = Fault(what="silence", at="start")
    async with supervised(Life(fault=fault), Life(), folder=tmp_path, limits=limits) as (_, diary, _):
        await diary.until(lambda diary: diary.losses == 1)
        assert diary.states[-1] is EngineState.DOWN


async def test_pauses_double_up_to_the_longest_and_start_anew_after_success(tmp_path: Path) -> None:
    """Each start that fails in a row doubles the pause; a ready engine clears the count."""
    failing = Life(fault=Fault(what="exit", at="start"))
    faulty = Life(fault=Fault(what="crash", at="ready"))
    async with supervised(failing, failing, failing, faulty, Life(), folder=tmp_path) as (_, diary, _):
        await diary.until(lambda diary: diary.losses == 4 and is_ready(diary))
    downs = [status for status in diary.statuses if status.state is EngineState.DOWN]
    assert [status.failures for status in downs] == [1, 2, 3, 0]
    assert [status.retry_after_s for status in downs] == [0.1, 0.2, 0.2, 0.05]


async def test_the_first_model_that_cannot_be_loaded_ends_the_service(tmp_path: Path) -> None:
    """A load that fails before any engine was ready is a StartupError with the engine's message."""
    failing = Life(fault=Fault(what="load_failed", at="load", message="no such model"))
    async with supervised(failing, folder=tmp_path) as (_, diary, task):
        with pytest.raises(StartupError, match="no such model"):
            await asyncio.wait_for(asyncio.shield(task), 20)
        assert diary.losses == 0


async def test_a_model_that_cannot_be_loaded_again_is_tried_again(tmp_path: Path) -> None:
    """A load that fails later only counts as a failed start: the file may come back."""
    lives = (
        Life(fault=Fault(what="crash", at="ready")),
        Life(fault=Fault(what="load_failed", at="load")),
        Life(),
    )
    async with supervised(*lives, folder=tmp_path) as (supervisor, diary, _):
        await diary.until(lambda diary: diary.losses == 2 and is_ready(diary))
        assert supervisor.status.failures == 0
        assert starts(tmp_path / "starts") == 3


async def test_an_engine_that_cannot_be_started_is_a_failed_start(tmp_path: Path) -> None:
    """A program that does not exist is told as a loss, and tried again after a pause."""
    limits = SupervisionLimits(backoff_s=0.01, backoff_max_s=0.01)
    supervisor = EngineSupervisor(CONFIG, limits, command=(str(tmp_path / "no-such-program"),))
    diary = Diary()
    supervisor.listen(diary)
    task = asyncio.create_task(supervisor.run())
    await diary.until(lambda diary: diary.losses == 3)
    task.cancel()
    await asyncio.wait((task,))
    assert [status.failures for status in diary.statuses if status.state is EngineState.DOWN][:3] == [1, 2, 3]


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 0.5), (1, 1.0), (2, 2.0), (10, 30.0), (2000, 30.0)])
def test_the_pause_is_bounded_after_any_number_of_failures(failures: int, pause_s: float) -> None:
    """It doubles with each, and a day of them does not overflow."""
    assert SupervisionLimits(backoff_s=0.5, backoff_max_s=30.0).pause_s(failures) == pause_s


async def test_what_is_sent_to_no_engine_is_dropped() -> None:
    """Rows and cancels for an engine that is not there are no error: the next loss takes them."""
    supervisor = EngineSupervisor(CONFIG, LIMITS, command=("unused",))
    supervisor.submit(submission(1))
    supervisor.cancel(1)
    assert supervisor.status.state is EngineState.LOADING
