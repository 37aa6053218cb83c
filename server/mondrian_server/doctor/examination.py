"""The examination: everything that is looked at, in order, by the settings that `mondrian serve` would have."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from mondrian_server.doctor import gateway
from mondrian_server.doctor.files import find_files
from mondrian_server.doctor.finding import Finding, Level, ok
from mondrian_server.doctor.folder import find_folder
from mondrian_server.doctor.machine import find_device, find_memory, weights_bytes
from mondrian_server.doctor.model import EngineParts, find_by_loading, find_model_files
from mondrian_server.doctor.ports import find_port
from mondrian_server.doctor.server import Running, find_server, look
from mondrian_server.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What is looked at.

    log_name: the log's file in the data directory.
    engine: what an engine is started with; None: no model is loaded.
    """

    settings: Settings
    log_name: str
    engine: EngineParts | None

    async def findings(self) -> AsyncGenerator[Finding]:
        """Yield what is found, the model last, because that takes longest."""
        settings = self.settings
        yield await find_device()
        running = await look(settings.grpc_address, settings.tls_certificate_file)
        kept = (settings.data_dir, self.log_name, settings.retention_bytes)
        for finding in find_folder(*kept, server_runs=running is not None):
            yield finding
        yield find_port("gRPC port", settings.grpc_address, "--grpc-address", ours=running is not None)
        yield await self._http_port()
        yield find_server(settings.grpc_address, running)
        for finding in find_files(settings):
            yield finding
        async for finding in self._model(running):
            yield finding

    async def _http_port(self) -> Finding:
        address, with_tls = self.settings.http_address, self.settings.http_tls_certificate_file is not None
        if not address:
            return ok("HTTP port", "there is no gateway (http_address is empty)")
        ours = await asyncio.to_thread(gateway.answers, address, with_tls=with_tls)
        return find_port("HTTP port", address, "--http-address", ours=ours)

    async def _model(self, running: Running | None) -> AsyncGenerator[Finding]:
        source = self.settings.model_source
        files = find_model_files(source)
        yield files
        if files.level is Level.PROBLEM:
            return
        if running is not None:
            yield ok("model loads", "not tried: the server that runs has it, and a second one may not fit into memory")
            return
        yield find_memory(weights_bytes(Path(source)))
        if self.engine is not None:
            async for finding in find_by_loading(self.engine):
                yield finding
