"""Go on with every active analysis of a log for ever, and print what a watcher has seen."""

import asyncio
import sys
from pathlib import Path

from mondrian_server.log.interface import EventLog
from mondrian_server.log.sqlite import SqliteLog
from tests.log.samples import begun, completed, token, watched

ANALYSES = 8
LENGTH = 300


async def main(path: Path) -> None:
    """Keep a number of analyses going, each by a writer and a watcher."""
    log = await SqliteLog.open(path)
    names = [record.name for record in await log.claim("child", lease_s=60)]
    async with asyncio.TaskGroup() as group:
        for index in range(ANALYSES):
            group.create_task(keep_going(log, names[index] if index < len(names) else ""))


async def keep_going(log: EventLog, name: str) -> None:
    """Write one analysis after another, the first from where it was left."""
    while True:
        if not name:
            name = await begun(log)
            say(name, 0)
        watching = asyncio.create_task(watch(log, name))
        sequence = await last_sequence(log, name)
        while sequence < LENGTH:
            sequence = log.append(name, token(f" {sequence + 1}", sequence)).sequence
            await asyncio.sleep(0.001)
        log.append(name, completed("all"))
        await watching
        name = ""


async def watch(log: EventLog, name: str) -> None:
    """Print each event when it is seen."""
    async for event in watched(log, name):
        say(name, event.sequence)


def say(name: str, sequence: int) -> None:
    """Print how far an analysis has been seen."""
    sys.stdout.write(f"{name} {sequence}\n")
    sys.stdout.flush()


async def last_sequence(log: EventLog, name: str) -> int:
    """Return the sequence of the last kept event."""
    sequence = 0
    while events := await log.read(name, sequence):
        sequence = events[-1].sequence
    return sequence


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
