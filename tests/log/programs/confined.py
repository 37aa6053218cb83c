"""Write a log while the process may not write large files, lift the limit, and print what became of the events."""

import asyncio
import resource
import signal
import sys
from pathlib import Path

from mondrian_server.errors import LogUnavailable
from mondrian_server.log.sqlite import SqliteLog, SqliteOptions
from tests.conditions import eventually
from tests.log.samples import begun, everything, kept, token


async def main(path: Path) -> None:
    """Run into the limit, see that nothing is shown that is not kept, and go on when it is lifted."""
    changes: list[bool] = []
    log = await SqliteLog.open(path, SqliteOptions(retry_s=0.02), on_availability=changes.append)
    name = await begun(log)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited))
    sent = 0
    while log.available:
        sent = log.append(name, token("x" * 1000, sent)).sequence
        await asyncio.sleep(0.001)
    seen = len(await everything(log, name))
    try:
        await begun(log)
        refused = False
    except LogUnavailable:
        refused = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    await eventually(lambda: log.available)
    await kept(log, name, sent)
    sequences = [event.sequence for event in await everything(log, name)]
    await log.close()
    sys.stdout.write(f"{seen < sent} {refused} {sequences == list(range(1, sent + 1))} {changes}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    asyncio.run(main(Path(sys.argv[1])))
