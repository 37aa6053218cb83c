"""The composition root: the only module that knows every part, and the life of the service from start to end."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from setproctitle import setproctitle

from mondrian_server.advisors import Advisors
from mondrian_server.analyses.admission import AdmissionLimits
from mondrian_server.analyses.housekeeping import Retention, keep_house
from mondrian_server.analyses.resolution import Defaults
from mondrian_server.analyses.scheduler import Scheduler
from mondrian_server.analyses.service import AnalysesService
from mondrian_server.analyses.validation import RequestLimits
from mondrian_server.callers import KeyRing
from mondrian_server.data_dir import DataDir
from mondrian_server.engine.interface import EngineState, EngineStatus
from mondrian_server.engine.protocol import EngineConfig, Step
from mondrian_server.engine.supervisor import ENGINE_COMMAND, EngineSupervisor, SupervisionLimits
from mondrian_server.gateway.connection import open_channel
from mondrian_server.gateway.serving import Gateway
from mondrian_server.http_face import http_face
from mondrian_server.images.decoder import ImageDecoder
from mondrian_server.images.protocol import ImageLimits
from mondrian_server.log.sqlite import SqliteLog, SqliteOptions
from mondrian_server.metrics import Limits, Metrics, Parts, Resources, versions
from mondrian_server.rpc.analysis_service import AnalysisServicer
from mondrian_server.rpc.authentication import Authentication
from mondrian_server.rpc.catalogue_services import AdvisorServicer, ModelServicer
from mondrian_server.rpc.health import Health
from mondrian_server.rpc.server import bind, bind_private, make_health, make_server
from mondrian_server.rpc.tls import Tls, TlsFiles
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
    tls = _tls(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(DataDir(settings.data_dir))
        health = make_health()
        metrics = Metrics(build=versions(), model=settings.model_name)
        listeners = _Listeners(health)
        log = await SqliteLog.open(
            settings.data_dir / LOG_NAME, _log_options(settings), on_availability=listeners.log_changed
        )
        stack.push_async_callback(log.close)
        engine = EngineSupervisor(_engine_config(settings), _supervision_limits(settings), command=engine_command)
        decoder = await stack.enter_async_context(ImageDecoder(_image_limits(settings), observer=metrics))
        scheduler = Scheduler(engine, slots=settings.slots, lookahead=settings.lookahead)
        analyses = AnalysesService(
            limits=_admission_limits(settings),
            defaults=_defaults(settings),
            engine=engine,
            scheduler=scheduler,
            decoder=decoder,
            advisors=advisors,
            log=log,
            observer=metrics,
        )
        listeners.analyses = analyses
        engine.listen(listeners)
        server = make_server(
            analyses=AnalysisServicer(analyses),
            advisors=AdvisorServicer(advisors.list()),
            models=ModelServicer(settings.model_name, engine, scheduler),
            health=health,
            max_message_bytes=settings.max_message_bytes,
            observer=metrics,
            authentication=authentication,
            reflection=_has_reflection(settings, authentication),
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
            limits=_metrics_limits(settings),
        )
        metrics.follow(parts.read)
        port = bind(server, settings.grpc_address, tls)
        # The gateway is a caller like any other, with a way of its own that needs no certificate.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mondrian-"))
        private = bind_private(server, Path(folder) / "grpc")
        await analyses.recover()
        await stack.enter_async_context(_task(health.run()))
        await stack.enter_async_context(_task(keep_house(log, analyses, _retention(settings))))
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
        self.analyses: AnalysesService | None = None

    def log_changed(self, available: bool) -> None:
        self._health.set_log_available(available)
        if self.analyses is not None:
            self.analyses.log_changed(available)

    def engine_changed(self, status: EngineStatus) -> None:
        self._health.set_engine_ready(status.state is EngineState.READY)
        if self.analyses is not None:
            self.analyses.engine_changed(status)

    def engine_step(self, step: Step) -> None:
        if self.analyses is not None:
            self.analyses.engine_step(step)

    def engine_lost(self) -> None:
        if self.analyses is not None:
            self.analyses.engine_lost()


@contextlib.asynccontextmanager
async def _task(work: Coroutine[None, None, None]) -> AsyncGenerator["asyncio.Task[None]"]:
    """Run a coroutine beside the block and cancel it at the end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _metrics_limits(settings: Settings) -> Limits:
    return Limits(
        slots=settings.slots,
        max_waiting=settings.max_waiting_analyses,
        max_waiting_bytes=settings.max_waiting_bytes,
        retention_bytes=settings.retention_bytes,
    )


def _tls(settings: Settings) -> Tls | None:
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    return Tls(
        TlsFiles(
            certificate=settings.tls_certificate_file,
            key=settings.tls_key_file,
            client_ca=settings.tls_client_ca_file,
        )
    )


def _has_reflection(settings: Settings, authentication: Authentication) -> bool:
    return settings.reflection == "on" or (settings.reflection == "auto" and not authentication.is_needed)


def _engine_config(settings: Settings) -> EngineConfig:
    return EngineConfig(
        model=settings.model_source,
        slots=settings.slots,
        prefill_step_tokens=settings.prefill_step_tokens,
        max_context_tokens=settings.max_context_tokens,
        vision_cache_entries=settings.vision_cache_entries,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        kv_bits=settings.kv_cache_bits,
        kv_group_size=settings.kv_cache_group_size,
        adapter=str(settings.adapter_path or ""),
        thinking=settings.thinking,
        thinking_budget_tokens=settings.thinking_budget_tokens,
        trust_remote_code=settings.trust_remote_code,
        download_stall_limit_s=settings.download_stall_limit_s,
    )


def _supervision_limits(settings: Settings) -> SupervisionLimits:
    return SupervisionLimits(
        beat_timeout_s=settings.engine_beat_timeout_s,
        operation_limit_s=settings.engine_operation_limit_s,
        load_limit_s=settings.engine_load_limit_s,
        backoff_s=settings.engine_restart_backoff_s,
        backoff_max_s=settings.engine_restart_backoff_max_s,
    )


def _image_limits(settings: Settings) -> ImageLimits:
    return ImageLimits(
        max_image_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_pixels,
        max_normalised_pixels=settings.max_normalised_pixels,
        decode_limit_s=settings.image_decode_limit_s,
        memory_limit_bytes=settings.image_memory_bytes,
    )


def _log_options(settings: Settings) -> SqliteOptions:
    return SqliteOptions(
        full_synchronous=settings.log_synchronous == "full",
        keep_images=settings.keep_images,
        max_file_bytes=settings.log_max_bytes,
    )


def _retention(settings: Settings) -> Retention:
    return Retention(age_s=settings.retention_s, total_bytes=settings.retention_bytes)


def _defaults(settings: Settings) -> Defaults:
    return Defaults(
        model=settings.model_id,
        max_tokens=settings.default_max_tokens,
        token_interval_s=settings.token_interval_s,
        progress_interval_s=settings.progress_interval_s,
    )


def _admission_limits(settings: Settings) -> AdmissionLimits:
    return AdmissionLimits(
        max_waiting=settings.max_waiting_analyses,
        max_waiting_bytes=settings.max_waiting_bytes,
        deadline_margin_s=settings.deadline_margin_s,
        request=RequestLimits(
            max_prompt_characters=settings.max_prompt_characters,
            max_images=settings.max_request_images,
            max_image_bytes=settings.max_image_bytes,
            max_images_bytes=settings.max_request_image_bytes,
        ),
    )
