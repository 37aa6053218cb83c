"""An office: the analyses service with two slots, over stand-ins and a real log."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mondrian_server.analyses.admission import AdmissionLimits
from mondrian_server.analyses.observing import UNOBSERVED, Observer
from mondrian_server.analyses.request import AnalysisRequest, Delivery
from mondrian_server.analyses.resolution import Defaults
from mondrian_server.analyses.scheduler import Scheduler
from mondrian_server.analyses.service import AnalysesService
from mondrian_server.analyses.spec import Spec, encode_spec
from mondrian_server.analyses.updates import Updates
from mondrian_server.engine.interface import EngineState
from mondrian_server.engine.protocol import RowUpdate
from mondrian_server.events import Event, Payload, Progress, Token
from mondrian_server.log.interface import Images, Record
from mondrian_server.log.sqlite import SqliteLog, SqliteOptions
from tests.unit.stand_ins import ADVISORS, GatedDecoder, ScriptedEngine

LOCAL = "local"

Kind = TypeVar("Kind", bound=Payload)


class TestableLog(SqliteLog):
    """A log that also writes down what is appended, and breaks where the text `break` is to be kept."""

    __test__ = False

    def __init__(
        self, path: Path, options: SqliteOptions | None = None, *, on_availability: Callable[[bool], None] | None = None
    ) -> None:
        """Begin with nothing written down."""
        super().__init__(path, options, on_availability=on_availability)
        self.written: defaultdict[str, list[Event]] = defaultdict(list)
        self.failures: list[Exception] = []
        """What the next heartbeats raise."""
        self.image_failures: list[Exception] = []
        """What the next reads of images raise."""
        self.find_takes_s = 0.0
        """How long finding a request takes."""

    def append(self, name: str, payload: Payload) -> Event:
        """Raise for that text."""
        if isinstance(payload, Token) and payload.text == "break":
            raise RuntimeError("the disk is full")
        event = super().append(name, payload)
        self.written[name].append(event)
        return event

    async def heartbeat(self, owner: str, *, lease_s: float) -> Sequence[str]:
        """Raise the next failure, if there is one."""
        if self.failures:
            raise self.failures.pop(0)
        return await super().heartbeat(owner, lease_s=lease_s)

    async def find(self, caller: str, request_id: str) -> Record | None:
        """Take as long as that."""
        await asyncio.sleep(self.find_takes_s)
        return await super().find(caller, request_id)

    async def images(self, name: str) -> Images:
        """Raise the next failure, if there is one."""
        if self.image_failures:
            raise self.image_failures.pop(0)
        return await super().images(name)

    async def begin(self, name: str, spec: Spec, caller: str = LOCAL) -> None:
        """Begin an analysis as the service does."""
        record = Record(
            name=name,
            caller=caller,
            request_id="",
            digest=b"",
            create_time_s=time.time(),
            spec=encode_spec(spec),
        )
        await self.create(record, (), owner="test", lease_s=60.0)


async def open_log(path: Path) -> TestableLog:
    """Open a log; the caller closes it."""
    log = await TestableLog.open(path)
    assert isinstance(log, TestableLog)
    return log


class Office:
    """A service over stand-ins; closed and opened again it is the next life of the server."""

    def __init__(
        self,
        log: TestableLog,
        state: EngineState,
        *,
        decoder: GatedDecoder | None = None,
        slots: int = 2,
        lookahead: int = 0,
        observer: Observer = UNOBSERVED,
        **limits: float,
    ) -> None:
        """Begin with what the log holds."""
        self.engine = ScriptedEngine(state)
        self.scheduler = Scheduler(self.engine, slots=slots, lookahead=lookahead)
        self.decoder = decoder or GatedDecoder()
        self.log = log
        self.service = AnalysesService(
            limits=replace(AdmissionLimits(max_waiting=3, max_waiting_bytes=1000), **limits),
            defaults=Defaults(model="tiny", token_interval_s=0.0, progress_interval_s=60.0),
            engine=self.engine,
            scheduler=self.scheduler,
            decoder=self.decoder,
            advisors=ADVISORS,
            log=log,
            observer=observer,
        )
        self.engine.listener = Updates(self.engine, self.scheduler)

    async def create(
        self,
        prompt: str = "?",
        *images: bytes,
        deadline_in_s: float | None = None,
        grace_s: float | None = None,
        progress_interval_s: float | None = None,
        token_interval_s: float | None = None,
        **changes: object,
    ) -> str:
        """Have an analysis created; progress comes every 60 s and each token at once, unless said otherwise."""
        delivery = Delivery(progress_interval_s=progress_interval_s, token_interval_s=token_interval_s)
        request = replace(AnalysisRequest(prompt=prompt, images=images, delivery=delivery), **changes)
        return await self.service.create(request, deadline_in_s=deadline_in_s, disconnect_grace_s=grace_s)

    async def events(self, name: str) -> Sequence[Event]:
        """Return all events of an analysis, when what was appended until now is kept."""
        await self.log.get(name)
        return await self.log.read(name, 0)

    async def payloads(self, name: str) -> list[Payload]:
        """Return what happened to an analysis."""
        return [event.payload for event in await self.events(name)]

    async def tokens(self, name: str) -> list[Token]:
        """Return the token events of an analysis."""
        return [payload for payload in await self.payloads(name) if isinstance(payload, Token)]

    async def progress(self, name: str) -> list[Progress]:
        """Return the progress events of an analysis."""
        return [payload for payload in await self.payloads(name) if isinstance(payload, Progress)]

    async def last(self, name: str, kind: type[Kind]) -> Kind:
        """Return the newest event, which must be of a kind."""
        payload = (await self.payloads(name))[-1]
        assert isinstance(payload, kind), payload
        return payload

    async def record(self, name: str) -> Record:
        """Return what the log keeps of an analysis, when what was appended until now is kept."""
        return await self.log.get(name)

    async def cancel(self, name: str) -> None:
        """Cancel an analysis of the local caller."""
        await self.service.cancel(name, LOCAL)

    def watch(self, name: str, after_sequence: int = 0) -> "Watcher":
        """Watch an analysis."""
        return Watcher(self, name, after_sequence)

    def row_of(self, prompt: str) -> int:
        """Return the newest row of a prompt."""
        return next(submit.row for submit in reversed(self.engine.submitted) if submit.prompt == prompt)

    def step(self, *updates: RowUpdate) -> None:
        """Let the engine tell of a step."""
        self.engine.step(*updates)

    def crash(self, *, killed_from_outside: bool = False) -> None:
        """Let the engine die, by itself or by somebody else's hand, and another one become ready."""
        self.engine.die(killed_from_outside=killed_from_outside)
        self.engine.become(EngineState.LOADING)
        self.engine.become(EngineState.READY)

    def holds_nothing(self) -> bool:
        """Return whether no analysis, row, place, byte or decoding is left."""
        return (
            self.service.live,
            self.scheduler.waiting,
            self.scheduler.rows_held,
            self.service.bytes_held,
            self.decoder.decoding,
        ) == (0, 0, 0, 0, 0)


class Watcher:
    """A watch that is being read, and the error that ended it, if one did."""

    def __init__(self, office: Office, name: str, after_sequence: int) -> None:
        """Begin to read."""
        self.events: list[Event] = []
        self.error: Exception | None = None
        self._task = asyncio.create_task(self._read(office, name, after_sequence))

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return self._task.done()

    async def end(self, *, within_s: float = 20.0) -> list[Event]:
        """Wait for the end and return everything; raises what ended it."""
        await asyncio.wait_for(self._task, within_s)
        if self.error is not None:
            raise self.error
        return self.events

    async def leave(self) -> None:
        """Go away."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _read(self, office: Office, name: str, after_sequence: int) -> None:
        groups = office.service.watch(name, LOCAL, after_sequence)
        try:
            async for events in groups:
                self.events.extend(events)
        except Exception as error:
            self.error = error
        finally:
            await groups.aclose()


class Offices:
    """Opens offices over one folder, one after the other, and ends what they started."""

    def __init__(self, folder: Path) -> None:
        """Begin with none."""
        self._path = folder / "analyses.db"
        self._office: Office | None = None

    async def open(
        self,
        state: EngineState = EngineState.READY,
        *,
        decoder: GatedDecoder | None = None,
        slots: int = 2,
        lookahead: int = 0,
        observer: Observer = UNOBSERVED,
        **limits: float,
    ) -> Office:
        """Open an office over what the last one left, without recovering it."""
        await self.close()
        log = await open_log(self._path)
        self._office = Office(
            log, state, decoder=decoder, slots=slots, lookahead=lookahead, observer=observer, **limits
        )
        return self._office

    async def reopen(
        self,
        state: EngineState = EngineState.LOADING,
        *,
        decoder: GatedDecoder | None = None,
        slots: int = 2,
        lookahead: int = 0,
        observer: Observer = UNOBSERVED,
        **limits: float,
    ) -> Office:
        """End the office as `close` does, open the next one, and let it take up what was left."""
        office = await self.open(state, decoder=decoder, slots=slots, lookahead=lookahead, observer=observer, **limits)
        await office.service.recover()
        return office

    async def close(self) -> None:
        """End the office as a server that is told to end and has no time."""
        if self._office is not None:
            await self._office.service.drain(0.0)
            await self.kill()

    async def kill(self) -> None:
        """End the office as a server that is killed: what was not handed to the log is gone."""
        if self._office is not None:
            office, self._office = self._office, None
            office.engine.listener = None
            await office.log.close()
