"""Records and payloads to fill a log with, and ways to look into it."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from mondrian_server.errors import EngineCrashed
from mondrian_server.events import (
    Accepted,
    Cancelled,
    Completed,
    Event,
    Failed,
    FinishReason,
    Payload,
    Progress,
    Stage,
    Timings,
    Token,
    Usage,
)
from mondrian_server.log.interface import EventLog, Record
from mondrian_server.pictures import Picture
from mondrian_server.sampling import Sampling

OWNER = "server-1"
LEASE_S = 60.0
ACCEPTED = Accepted(
    model="models/tiny",
    advisor="mondrian",
    sampling=Sampling(max_tokens=40, temperature=0.5, stop=("END",)),
    context_tokens=2048,
    queue_position=2,
    deadline_time=datetime(2026, 11, 20, 12, 30, 0, 250_000, tzinfo=UTC),
)
PROGRESS = Progress(
    stage=Stage.GENERATING, message="Generating analysis... (50 tokens)", fraction=0.5, estimated_time_left_s=1.5
)
CANCELLED = Cancelled(stage=Stage.GENERATING, usage=Usage(output_tokens=2))
FAILED = Failed(error=EngineCrashed("the engine crashed", field="config.prompt", retry_after_s=2.5))


def record(name: str = "", *, caller: str = "local", request_id: str = "", spec: bytes = b"what to do") -> Record:
    """Return a new record, of a new name if none is given."""
    return Record(
        name=name or f"analyses/{uuid.uuid4().hex}",
        caller=caller,
        request_id=request_id,
        digest=b"digest",
        create_time_s=time.time(),
        spec=spec,
    )


def token(text: str = " red", index: int = 0) -> Token:
    """Return a token event's payload."""
    return Token(text=text, first_index=index, token_count=1, ids=(7 + index,), log_probabilities=(-0.25,))


def completed(text: str) -> Completed:
    """Return the end of an analysis that gave this text."""
    return Completed(
        text=text, finish_reason=FinishReason.STOP, usage=Usage(output_tokens=3), timings=Timings(total_s=1.25)
    )


def picture(width: int = 4, height: int = 3) -> Picture:
    """Return a grey picture."""
    pixels = bytes([90]) * (width * height * 3)
    return Picture(width=width, height=height, pixels=pixels, digest=hashlib.sha256(pixels).digest())


async def begun(log: EventLog, new: Record | None = None, files: Sequence[bytes] = ()) -> str:
    """Create an analysis and return its name."""
    new = new or record()
    await log.create(new, files, owner=OWNER, lease_s=LEASE_S)
    return new.name


async def ended(log: EventLog, new: Record | None = None, tokens: int = 3) -> str:
    """Create an analysis, give it tokens and an end, and return its name when all of it is kept."""
    name = await begun(log, new)
    for index in range(tokens):
        log.append(name, token(index=index))
    last = log.append(name, completed(" red" * tokens))
    await kept(log, name, last.sequence)
    return name


async def kept(log: EventLog, name: str, sequence: int, limit_s: float = 20.0) -> None:
    """Return when the event of that sequence is kept."""
    async with asyncio.timeout(limit_s):
        await log.wait(name, sequence - 1)


async def everything(log: EventLog, name: str, page: int = 1000) -> list[Event]:
    """Return all kept events of an analysis, read page by page."""
    found: list[Event] = []
    while events := await log.read(name, found[-1].sequence if found else 0, page):
        found.extend(events)
    return found


async def watched(log: EventLog, name: str, after_sequence: int = 0) -> AsyncIterator[Event]:
    """Yield events as a watcher sees them, to the terminal one."""
    while True:
        for event in await log.read(name, after_sequence):
            yield event
            after_sequence = event.sequence
            if event.is_terminal:
                return
        await log.wait(name, after_sequence)


def payloads(events: Sequence[Event]) -> list[Payload]:
    """Return the payloads of events."""
    return [event.payload for event in events]
