"""The supervisor: starts the engine process, watches its signs of life, replaces it when it dies or hangs."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, replace

import msgspec
import structlog

from mondrian_server.child import Child, count_oom_kills, python
from mondrian_server.engine.interface import EngineListener, EngineState, EngineStatus
from mondrian_server.engine.protocol import (
    IDLE,
    Beat,
    Cancel,
    Configure,
    EngineConfig,
    FromEngine,
    LoadFailed,
    Loading,
    Ready,
    Step,
    Submit,
)
from mondrian_server.errors import StartupError
from mondrian_server.framing import AsyncChannel

_log = structlog.stdlib.get_logger(__name__)

_WATCH_STEPS = 8
_STARTING = Beat(operation="start", operation_s=0.0, rows_held=0)
_STATUS_GRACE_S = 1.0
_MAX_DOUBLINGS = 30
"""Beyond these a pause would overflow; `backoff_max_s` has been reached long before."""

ENGINE_COMMAND = python("mondrian_server.engine.process")


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisionLimits:
    """How long the supervisor waits before it acts, in seconds.

    beat_timeout_s: silence after which a running engine counts as hung.
    operation_limit_s: the longest that one operation of a loaded engine may take; idleness without rows is none.
    load_limit_s: the longest that start and load may take, once nothing more is downloaded.
    backoff_s, backoff_max_s: the first and the longest pause before the engine is started again.
    """

    beat_timeout_s: float = 5.0
    operation_limit_s: float = 60.0
    load_limit_s: float = 600.0
    backoff_s: float = 0.25
    backoff_max_s: float = 30.0

    def pause_s(self, failures: int) -> float:
        """Return how long to wait before the next start, after so many failed ones in a row."""
        return min(self.backoff_max_s, self.backoff_s * 2 ** min(failures, _MAX_DOUBLINGS))


class _EngineEnded(Exception):
    """One engine's life is over; the message says how."""


class EngineSupervisor:
    """Keeps one engine process alive and passes frames both ways. An `Engine`."""

    def __init__(
        self, config: EngineConfig, limits: SupervisionLimits, *, command: Sequence[str] = ENGINE_COMMAND
    ) -> None:
        """Prepare; `run` starts the engine."""
        self._config = config
        self._limits = limits
        self._command = command
        self._listener: EngineListener | None = None
        self._channel: AsyncChannel[FromEngine] | None = None
        self._status = EngineStatus(state=EngineState.LOADING)
        self._ever_ready = False
        self._started_at = 0.0
        self._downloaded_at = 0.0
        self._silence_s = 0.0
        self._neglects_since: float | None = None
        self.pid: int | None = None
        """The process id of the engine that runs now."""
        self.beat = _STARTING
        """The newest sign of life."""
        self.restarts = 0
        """How often the engine was replaced."""

    @property
    def status(self) -> EngineStatus:
        """The engine now."""
        return self._status

    def listen(self, listener: EngineListener) -> None:
        """Tell `listener` from now on; there is one."""
        self._listener = listener

    def submit(self, row: Submit) -> None:
        """Hand over one generation."""
        self._send(row)

    def cancel(self, row: int) -> None:
        """Tell the engine that nobody wants a row any more."""
        self._send(Cancel(row=row))

    async def run(self) -> None:
        """Keep an engine alive until cancelled; raises StartupError if the first one cannot load its model."""
        if self._config.trust_remote_code:
            _log.warning("Python code that comes with the model is run, because trust_remote_code is set")
        while True:
            await self._live()
            await asyncio.sleep(self._status.retry_after_s)
            self.restarts += 1
            self._change(state=EngineState.LOADING, loading=None)

    async def _live(self) -> None:
        """Run one engine to its end. Everybody is told before it is killed, because that may take its time."""
        self.beat, self._silence_s, self._neglects_since = _STARTING, 0.0, None
        self._started_at = asyncio.get_running_loop().time()
        try:
            child = await Child.start(self._command)
        except OSError as error:
            self._lost(f"could not be started: {error}")
            return
        async with child:
            self.pid = child.pid
            killed, oom_kills = False, count_oom_kills()
            channel = await AsyncChannel[FromEngine].open(child.end, FromEngine)
            try:
                channel.send(Configure(config=self._config))
                self._channel = channel
                await self._follow(channel)
                status = await _status_of(child)
                how = "closed its channel and did not end" if status is None else f"ended with status {status}"
                killed = status == -signal.SIGKILL and oom_kills is not None and oom_kills == count_oom_kills()
            except _EngineEnded as end:
                how = str(end)
            finally:
                self._channel, self.pid = None, None
                await channel.close()
            self._lost(how, killed=killed)

    async def _follow(self, channel: AsyncChannel[FromEngine]) -> None:
        """Pass on frames until the channel closes; raises _EngineEnded when the engine hangs or talks nonsense."""
        try:
            async with asyncio.timeout(None) as life, _beside(self._watch(life)):
                while (frame := await channel.receive()) is not None:
                    self._handle(frame)
        except TimeoutError as error:
            raise _EngineEnded(f"gave no sign of life during {self.beat.operation!r}") from error
        except msgspec.MsgspecError as error:
            raise _EngineEnded(f"sent what is not a frame: {error}") from error

    async def _watch(self, life: asyncio.Timeout) -> None:
        """End a life in which the engine stays silent.

        Our own wake-ups are counted and not the clock, so that a halt of the server is not taken for one of the engine.
        """
        step_s = self._limits.beat_timeout_s / _WATCH_STEPS
        while self._silence_s < (self._limits.load_limit_s if self.beat is _STARTING else self._limits.beat_timeout_s):
            await asyncio.sleep(step_s)
            self._silence_s += step_s
        life.reschedule(0.0)

    def _handle(self, frame: FromEngine) -> None:
        match frame:
            case Beat():
                self._check(frame)
            case Step():
                self._status = replace(
                    self._status,
                    slots_in_use=frame.slots_in_use,
                    peak_memory_bytes=frame.peak_memory_bytes,
                    active_memory_bytes=frame.active_memory_bytes,
                )
                if self._listener:
                    self._listener.engine_step(frame)
            case Loading():
                if frame.downloading:
                    self._downloaded_at = asyncio.get_running_loop().time()
                self._change(loading=frame)
            case Ready():
                self._ever_ready = True
                self._change(
                    state=EngineState.READY,
                    model=frame.model,
                    loading=None,
                    failures=0,
                    peak_memory_bytes=frame.peak_memory_bytes,
                    active_memory_bytes=frame.active_memory_bytes,
                )
                _log.info("engine is ready", pid=self.pid, model=frame.model.architecture)
            case LoadFailed():
                if not self._ever_ready:
                    raise StartupError(frame.message)
                raise _EngineEnded(f"could not load the model: {frame.message}")

    def _check(self, beat: Beat) -> None:
        """Note a sign of life; raises _EngineEnded if the operation, or the load in all, has taken too long."""
        self.beat, self._silence_s = beat, 0.0
        if self._status.state is EngineState.READY:
            took_s, limit_s = self._worked_s(beat), self._limits.operation_limit_s
        else:
            took_s, limit_s = self._loaded_for_s(), self._limits.load_limit_s
        if took_s > limit_s:
            raise _EngineEnded(f"spent {took_s:.1f} s on {beat.operation!r}")

    def _loaded_for_s(self) -> float:
        """Return how long the engine has loaded, from its start or from the last bytes that it downloaded."""
        return asyncio.get_running_loop().time() - max(self._started_at, self._downloaded_at)

    def _worked_s(self, beat: Beat) -> float:
        """Return how long the operation has lasted, or the engine has done nothing for the rows that it holds."""
        if beat.operation != IDLE or not beat.rows_held:
            self._neglects_since = None
            return 0.0 if beat.operation == IDLE else beat.operation_s
        now_s = asyncio.get_running_loop().time()
        if self._neglects_since is None:
            self._neglects_since = now_s  # Not the operation's own time: it was idle before the row came, too.
        return now_s - self._neglects_since

    def _lost(self, how: str, *, killed: bool = False) -> None:
        """Tell everybody, and decide how long to wait before the next start; `killed`: by somebody else."""
        was_ready = self._status.state is EngineState.READY
        failures = 0 if was_ready else self._status.failures + 1
        pause_s = self._limits.pause_s(failures)
        _log.error("engine lost", how=how, lived_s=round(self._lived_s(), 1), restart_in_s=pause_s)
        self._change(
            state=EngineState.DOWN,
            failures=failures,
            retry_after_s=pause_s,
            killed_from_outside=killed,
            loading=None,
            slots_in_use=0,
            active_memory_bytes=0,
        )
        if self._listener:
            self._listener.engine_lost()

    def _lived_s(self) -> float:
        return asyncio.get_running_loop().time() - self._started_at

    def _change(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)
        if self._listener:
            self._listener.engine_changed(self._status)

    def _send(self, frame: Submit | Cancel) -> None:
        if self._channel is not None:
            self._channel.send(frame)


async def _status_of(child: Child) -> int | None:
    """Return the exit status of a child that has closed its channel; one that does not end is killed, and None."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STATUS_GRACE_S):
            return await child.wait()
    await child.kill()
    return None


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    """Run a coroutine beside the block and end it with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
