"""A server whose engine follows a script, with or without its log: for what the transport and the log alone cost.

Run by the harness: `python -m bench.scripted FOLDER LIFE SLOTS LOG [MODEL]`. LIFE is the JSON of a scripted engine,
or empty for the real engine on MODEL; LOG is `log` or `none`. It says its port, and ends when the pipe is closed.
"""

import asyncio
import sqlite3
import sys
from pathlib import Path
from typing import Any

import msgspec

from mondrian_server import logs
from mondrian_server.app import running
from mondrian_server.engine.supervisor import ENGINE_COMMAND
from mondrian_server.log.sqlite import log as sqlite_log
from mondrian_server.log.sqlite.events import Append
from mondrian_server.log.sqlite.operation import Operation
from mondrian_server.log.sqlite.schema import migrate
from mondrian_server.log.sqlite.transaction import execute
from mondrian_server.settings import Settings
from tests.scripted_engine.program import Life, command


class NoWriter:
    """Stands in for the log's writer: events are seen at once and kept nowhere, records live in memory."""

    def __init__(self, _: Path, __: Any, listener: Any):
        """Open an empty database in memory."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        migrate(self._connection)

    async def start(self) -> None:
        """Nothing is to be opened."""

    def put(self, message: Append | Operation[Any]) -> None:
        """Take an event as kept, or do an operation, at the loop's next turn."""
        if isinstance(message, Append):
            self._loop.call_soon(self._listener.kept, (message.event,), ())
        else:
            execute(self._connection, message)
            self._loop.call_soon(self._listener.kept, (), (message,))

    async def close(self) -> int:
        """Nothing is lost, because nothing was kept."""
        self._connection.close()
        return 0


async def serve(folder: Path, life: str, slots: int, *, log: bool, model: str) -> None:
    """Serve until the pipe closes."""
    if not log:
        sqlite_log.Writer = NoWriter
    engine = command([msgspec.json.decode(life, type=Life)], folder / "starts") if life else ENGINE_COMMAND
    settings = Settings(
        grpc_address="127.0.0.1:0",
        http_address="",
        data_dir=folder / "data",
        slots=slots,
        log_level="error",
        model=model,
        max_waiting_analyses=100_000,
    )
    async with running(settings, engine_command=engine) as service:
        print(f"port {service.port}", flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main(folder: str, life: str, slots: str, log: str, model: str = "") -> None:
    """Serve what the arguments say."""
    logs.configure(level="error", log_format="json")
    asyncio.run(serve(Path(folder), life, int(slots), log=log == "log", model=model))


if __name__ == "__main__":
    main(*sys.argv[1:])
