"""The log in memory: it lives as long as the server process."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from mondrian_server.events import Cancelled, Completed, Event, Failed, Payload, Token
from mondrian_server.log.interface import Images, Record, RequestIdTaken, State
from mondrian_server.pictures import Picture


@dataclass(slots=True)
class _Entry:
    record: Record
    images: Images
    events: list[Event] = field(default_factory=list[Event])
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryLog:
    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def available(self) -> bool:
        return True

    async def create(self, record: Record, files: Sequence[bytes], *, owner: str, lease_s: float) -> None:
        if record.request_id and (known := await self.find(record.caller, record.request_id)):
            raise RequestIdTaken(known)
        self._entries[record.name] = _Entry(record, Images(files=tuple(files)))

    def append(self, name: str, payload: Payload) -> Event:
        entry = self._entries[name]
        if entry.events and entry.events[-1].is_terminal:
            raise ValueError(f"{name} has ended")
        event = Event(sequence=len(entry.events) + 1, analysis=name, create_time=datetime.now(UTC), payload=payload)
        entry.events.append(event)
        if isinstance(payload, Completed | Failed | Cancelled):
            text = "".join(e.payload.text for e in entry.events if isinstance(e.payload, Token))
            state = {Completed: State.COMPLETED, Failed: State.FAILED, Cancelled: State.CANCELLED}[type(payload)]
            entry.record = msgspec.structs.replace(
                entry.record, state=state, end_time_s=event.create_time.timestamp(), terminal=payload, text=text
            )
            entry.images = Images()
        entry.changed.set()
        entry.changed = asyncio.Event()
        return event

    async def read(self, name: str, after_sequence: int, limit: int = 1000) -> Sequence[Event]:
        return self._entries[name].events[after_sequence : after_sequence + limit]

    async def wait(self, name: str, after_sequence: int) -> None:
        while (entry := self._entries.get(name)) and len(entry.events) <= after_sequence:
            await entry.changed.wait()

    async def put_pictures(self, name: str, pictures: Sequence[Picture]) -> None:
        self._entries[name].images = Images(pictures=tuple(pictures))

    async def images(self, name: str) -> Images:
        return self._entries[name].images

    async def get(self, name: str) -> Record:
        return self._entries[name].record

    async def find(self, caller: str, request_id: str) -> Record | None:
        for entry in self._entries.values():
            if (entry.record.caller, entry.record.request_id) == (caller, request_id):
                return entry.record
        return None

    async def list(
        self, caller: str, states: Sequence[State], *, before: str = "", limit: int = 50
    ) -> Sequence[Record]:
        records = [e.record for e in reversed(self._entries.values()) if e.record.caller == caller]
        if before:
            records = records[[r.name for r in records].index(before) + 1 :]
        return [r for r in records if not states or r.state in states][:limit]

    async def cancel(self, name: str) -> None:
        pass

    async def delete(self, name: str) -> None:
        entry = self._entries.pop(name)
        entry.changed.set()

    async def claim(self, owner: str, *, lease_s: float) -> Sequence[Record]:
        return []

    async def heartbeat(self, owner: str, *, lease_s: float) -> Sequence[str]:
        return []

    async def release(self, owner: str, name: str) -> None:
        pass

    async def expire(self, *, ended_before_s: float, keep_bytes: int) -> Sequence[str]:
        return []

    async def close(self) -> None:
        pass
