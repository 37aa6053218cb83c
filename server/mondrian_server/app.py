"""The composition root: the only module that knows every part, and the life of the service from start to end."""

import asyncio
import contextlib
import gc
import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from setproctitle import setproctitle

from mondrian_server import configuration
from mondrian_server.advisors import Advisors
from mondrian_server.analyses.housekeeping import keep_house
from mondrian_server.analyses.scheduler import Scheduler
from mondrian_server.analyses.service import AnalysesService
from mondrian_server.analyses.updates import Updates
from mondrian_server.callers import Allowances, KeyRing
from mondrian_server.data_dir import DataDir
from mondrian_server.engine.interface import EngineState, EngineStatus
from mondrian_server.engine.protocol import Step
from mondrian_server.engine.supervisor import ENGINE_COMMAND, EngineSupervisor
from mondrian_server.errors import StartupError
from mondrian_server.gateway.connection import open_channel
from mondrian_server.gateway.serving import Gateway
from mondrian_server.http_face import http_face
from mondrian_server.images.decoder import ImageDecoder
from mondrian_server.log.sqlite import SqliteLog
from mondrian_server.metrics import Metrics, Parts, Resources, versions
from mondrian_server.rpc.analysis_service import AnalysisServicer
from mondrian_server.rpc.authentication import Authentication
from mondrian_server.rpc.catalogue_services import AdvisorServicer, ModelServicer
from mondrian_server.rpc.health import Health
from mondrian_server.rpc.server import bind, bind_private, make_health, make_server
from mondrian_server.rpc.tls import Tls
from mondrian_server.settings import Settings
from mondrian_server.signals import let_signals_end_the_process, stop_signal

LOG_NAME = "analyses.db"
"""The log's file in the data directory."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service that is up. Its parts are for those who watch over it."""

    port: int
    gateway: Gateway | None
    engine: EngineSupervisor
    analyses: AnalysesService
    scheduler: Scheduler
    log: SqliteLog
    health: Health
    supervision: "asyncio.Task[None]"
    metrics: Callable[[], bytes]
    """Returns everything that is counted, as Prometheus reads it; to be called on the loop."""

    async def ended(self) -> None:
        """Wait for ever; raises StartupError when the first engine cannot load its model."""
        await asyncio.shield(self.supervision)


def serve(settings: Settings, *, announce: Callable[[Service], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status.

    Args:
        settings: what the operator decided.
        announce: called once the service listens.

    Raises:
        StartupError: the service cannot start; the message says why in one line.

    """
    setproctitle("mondrian: server")
    return asyncio.run(_serve(settings, announce))


async def _serve(settings: Settings, announce: Callable[[Service], None] | None) -> int:
    stop = stop_signal()
    async with running(settings) as service:
        if announce:
            announce(service)
        # What is there now stays: the collector need not walk through it again and again, with every caller waiting.
        gc.freeze()
        ended = asyncio.create_task(service.ended())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
            _log.info("stopping", live=service.analyses.live, grace_s=settings.shutdown_grace_s)
            let_signals_end_the_process()
            await service.health.drain()
            await service.analyses.drain(settings.shutdown_grace_s)
        finally:
            for task in (ended, stopped):
                task.cancel()
    _log.info("stopped")
    return 0


@contextlib.asynccontextmanager
async def running(settings: Settings, *, engine_command: Sequence[str] = ENGINE_COMMAND) -> AsyncGenerator[Service]:
    """Run the service inside a `with` block; at its end everything that was started is ended.

    Args:
        settings: what the operator decided.
        engine_command: the engine process; another one only where a fault or a rate must be timed.

    Raises:
        StartupError: the service cannot start.

    """
    advisors = Advisors.load(settings.advisors_file)
    keys = KeyRing.open(settings.keys_file)
    authentication = Authentication(keys=keys, certificates=settings.tls_client_ca_file is not None)
    allowances = Allowances(configuration.caller_limits(settings), keys, shared=authentication.is_needed)
    tls = Tls.open(configuration.tls_files(settings))
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(DataDir(settings.data_dir))
        health = make_health()
        metrics = Metrics(build=versions(), model=settings.model_name)
        listeners = _Listeners(health)
        log = await SqliteLog.open(
            settings.data_dir / LOG_NAME, configuration.log_options(settings), on_availability=listeners.log_changed
        )
        stack.push_async_callback(log.close)
        engine = EngineSupervisor(
            configuration.engine_config(settings), configuration.supervision_limits(settings), command=engine_command
        )
        decoder = await stack.enter_async_context(ImageDecoder(configuration.image_limits(settings), observer=metrics))
        scheduler = Scheduler(
            engine, slots=settings.slots, lookahead=settings.lookahead, most_running=allowances.most_running
        )
        analyses = AnalysesService(
            limits=configuration.admission_limits(settings),
            defaults=configuration.defaults(settings),
            engine=engine,
            scheduler=scheduler,
            decoder=decoder,
            advisors=advisors,
            log=log,
            observer=metrics,
            allowances=allowances,
        )
        # However the block ends, nobody writes to the log when it closes.
        stack.push_async_callback(analyses.drain, 0.0)
        listeners.updates = Updates(engine, scheduler)
        engine.listen(listeners)
        server = make_server(
            analyses=AnalysisServicer(analyses, shared=authentication.is_needed),
            advisors=AdvisorServicer(advisors.list()),
            models=ModelServicer(settings.model_name, engine, scheduler),
            health=health,
            max_message_bytes=settings.max_message_bytes,
            reception_limits=configuration.reception_limits(settings, authentication),
            observer=metrics,
            authentication=authentication,
            reflection=configuration.has_reflection(settings, authentication),
        )
        resources = Resources(
            log,
            lambda: {"server": os.getpid(), "engine": engine.pid, "images": decoder.pid},
            on_lag=metrics.lagged,
        )
        parts = Parts(
            analyses=analyses,
            scheduler=scheduler,
            engine=engine,
            decoder=decoder,
            log=log,
            resources=resources,
            limits=configuration.metrics_limits(settings),
        )
        metrics.follow(parts.read)
        port = bind(server, settings.grpc_address, tls)
        # The gateway is a caller like any other, with a way of its own that needs no certificate.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mondrian-"))
        private = bind_private(server, Path(folder) / "grpc")
        await analyses.recover()
        await stack.enter_async_context(_task(health.run()))
        await stack.enter_async_context(_task(keep_house(log, analyses, configuration.retention(settings))))
        await stack.enter_async_context(_task(resources.run()))
        for watched in (keys, tls):
            if watched is not None:
                await stack.enter_async_context(_task(watched.run()))
        supervision = await stack.enter_async_context(_task(engine.run()))
        await server.start()
        stack.push_async_callback(server.stop, 1.0)
        serving = None
        if settings.http_address:
            channel = await stack.enter_async_context(open_channel(private))
            serving = await stack.enter_async_context(http_face(settings, channel, metrics=metrics.exposition))
        http_port = serving.port if serving else None
        _log.info("listening", grpc_port=port, http_port=http_port, model=settings.model_name)
        yield Service(
            port=port,
            gateway=serving,
            engine=engine,
            analyses=analyses,
            scheduler=scheduler,
            log=log,
            health=health,
            supervision=supervision,
            metrics=metrics.exposition,
        )


class _Listeners:
    """Passes on what the log and the engine do to health and, once there are some, to the analyses."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self.updates: Updates | None = None

    def log_changed(self, available: bool) -> None:
        self._health.set_log_available(available)
        if self.updates is not None:
            self.updates.log_changed(available)

    def engine_changed(self, status: EngineStatus) -> None:
        self._health.set_engine_ready(status.state is EngineState.READY)
        if self.updates is not None:
            self.updates.engine_changed(status)

    def engine_step(self, step: Step) -> None:
        if self.updates is not None:
            self.updates.engine_step(step)

    def engine_lost(self) -> None:
        if self.updates is not None:
            self.updates.engine_lost()


@contextlib.asynccontextmanager
async def _task(work: Coroutine[None, None, None]) -> AsyncGenerator["asyncio.Task[None]"]:
    """Run a coroutine beside the block and cancel it at the end; a defect that ends it before is logged."""
    task = asyncio.create_task(work, name=work.__qualname__)
    task.add_done_callback(_tell_defect)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _tell_defect(task: "asyncio.Task[None]") -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, StartupError):
        _log.error("a task beside the service has ended", task=task.get_name(), exc_info=error)
