"""Open a log and print `open`, or the line with which it is refused."""

import asyncio
import os
import sys
from pathlib import Path

from mondrian_server.errors import StartupError
from mondrian_server.log.sqlite import SqliteLog


async def main(path: Path) -> None:
    """Open and close."""
    try:
        log = await SqliteLog.open(path)
    except StartupError as error:
        sys.stdout.write(f"{error}\n")
    else:
        sys.stdout.write("open\n")
        await log.close()


if __name__ == "__main__":
    if len(sys.argv) > 2 and os.geteuid() == 0:
        # Permissions do not hold the superuser; everything is imported already.
        os.setuid(int(sys.argv[2]))
    asyncio.run(main(Path(sys.argv[1])))
