"""Calls: a running service with its stubs, and what a stream of it came to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from mondrian.v1 import advisor_service_pb2_grpc, analysis_service_pb2_grpc, model_service_pb2_grpc
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.app import Service, running
from mondrian_server.engine.supervisor import ENGINE_COMMAND
from mondrian_server.settings import Settings
from tests.conditions import eventually

ANALYZE = "/mondrian.v1.AnalysisService/Analyze"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A channel to a service, with its stubs, and the API key that calls show, if any."""

    channel: grpc.aio.Channel
    key: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What calls carry."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    def by(self, key: str) -> "Connection":
        """Return this connection as the bearer of a key has it."""
        return Connection(channel=self.channel, key=key)

    @property
    def analyses(self) -> "analysis_service_pb2_grpc.AnalysisServiceAsyncStub":
        """The stub of AnalysisService."""
        return analysis_service_pb2_grpc.AnalysisServiceStub(self.channel)

    @property
    def advisors(self) -> "advisor_service_pb2_grpc.AdvisorServiceAsyncStub":
        """The stub of AdvisorService."""
        return advisor_service_pb2_grpc.AdvisorServiceStub(self.channel)

    @property
    def models(self) -> "model_service_pb2_grpc.ModelServiceAsyncStub":
        """The stub of ModelService."""
        return model_service_pb2_grpc.ModelServiceStub(self.channel)

    async def is_serving(self) -> bool:
        """Ask health."""
        check = self.channel.unary_unary(
            HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer: health_pb2.HealthCheckResponse = await check(health_pb2.HealthCheckRequest())
        return answer.status == SERVING

    def call(self, config: pb.AnalysisConfig, *, timeout_s: float | None = None) -> "Call":
        """Start an analysis."""
        request = service_pb.AnalyzeRequest(config=config)
        return Call(self.analyses.Analyze(request, timeout=timeout_s, metadata=self.metadata))

    async def create(self, config: pb.AnalysisConfig, *, request_id: str = "") -> pb.Analysis:
        """Create a detached analysis."""
        request = service_pb.CreateAnalysisRequest(config=config, request_id=request_id)
        return (await self.analyses.CreateAnalysis(request, metadata=self.metadata)).analysis

    async def get(self, name: str) -> pb.Analysis:
        """Get an analysis."""
        request = service_pb.GetAnalysisRequest(name=name)
        return (await self.analyses.GetAnalysis(request, metadata=self.metadata)).analysis

    def watch(self, name: str, after: int = 0) -> "Call":
        """Watch an analysis, from behind the event with the number `after`."""
        request = service_pb.WatchAnalysisRequest(name=name, after_sequence=after)
        return Call(self.analyses.WatchAnalysis(request, metadata=self.metadata))

    async def watched(self, name: str, after: int = 0) -> "Outcome":
        """Watch an analysis to its end."""
        return await self.watch(name, after).outcome()

    def send(self, data: bytes, *, compression: grpc.Compression | None = None) -> "Call":
        """Start an analysis from the bytes of a message, whatever they are."""
        analyze: grpc.aio.UnaryStreamMultiCallable[Any, service_pb.AnalyzeResponse] = self.channel.unary_stream(
            ANALYZE, response_deserializer=service_pb.AnalyzeResponse.FromString
        )
        return Call(analyze(data, compression=compression))

    async def ask(self, config: pb.AnalysisConfig, *, timeout_s: float | None = None) -> "Outcome":
        """Make an analysis and wait for its end."""
        return await self.call(config, timeout_s=timeout_s).outcome()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running(Connection):
    """A service in this process, and a channel to it."""

    service: Service

    @property
    def held(self) -> tuple[int, int, int, int]:
        """What the server holds: live analyses, waiting ones, rows of the engine, bytes of images, in that order."""
        service = self.service
        return (
            service.analyses.live,
            service.scheduler.waiting,
            service.scheduler.rows_held,
            service.analyses.bytes_held,
        )


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a stream came to: its events, when each arrived, and the error that ended it, if one did.

    `cancelled` says that this side cancelled it.
    """

    events: list[pb.Event] = field(default_factory=list[pb.Event])
    times_s: list[float] = field(default_factory=list[float])
    error: grpc.aio.AioRpcError | None = None
    cancelled: bool = False

    @property
    def code(self) -> grpc.StatusCode:
        """The status code."""
        if self.cancelled:
            return grpc.StatusCode.CANCELLED
        return grpc.StatusCode.OK if self.error is None else self.error.code()

    @property
    def text(self) -> str:
        """The texts of all token events together."""
        return "".join(event.token.text for event in self.events)

    @property
    def ids(self) -> list[int]:
        """The ids of all tokens, where they were asked for."""
        return [id_ for event in self.events for id_ in event.token.ids]

    @property
    def log_probabilities(self) -> list[float]:
        """The log-probabilities of all tokens, where they were asked for."""
        return [value for event in self.events for value in event.token.log_probabilities]

    @property
    def accepted(self) -> pb.Accepted:
        """The first event."""
        return self.events[0].accepted

    @property
    def completed(self) -> pb.Completed:
        """The last event, which must be `completed`."""
        assert self.events[-1].WhichOneof("payload") == "completed", self.events[-1]
        return self.events[-1].completed

    @property
    def stages(self) -> "list[pb.Stage.ValueType]":
        """The stages in the order in which they were reported, each run of one stage once."""
        stages = [event.progress.stage for event in self.events if event.HasField("progress")]
        return [stage for index, stage in enumerate(stages) if index == 0 or stage != stages[index - 1]]

    @property
    def message(self) -> str:
        """The error's sentence for people."""
        return (self.error.details() or "") if self.error else ""

    @property
    def reason(self) -> str:
        """The reason in the error's ErrorInfo."""
        return self._detail(ErrorInfo).reason

    @property
    def domain(self) -> str:
        """The domain in the error's ErrorInfo."""
        return self._detail(ErrorInfo).domain

    @property
    def field_at_fault(self) -> str:
        """The field in the error's BadRequest."""
        return self._detail(BadRequest).field_violations[0].field

    @property
    def retry_after_s(self) -> float:
        """The delay in the error's RetryInfo."""
        return self._detail(RetryInfo).retry_delay.ToNanoseconds() / 1e9

    def _detail(self, kind: type[Any]) -> Any:
        assert self.error is not None, "the call ended OK"
        status: Status | None = vars(rpc_status)["from_call"](self.error)  # grpcio-status carries no types
        assert status is not None, self.error
        for packed in status.details:
            detail = kind()
            if packed.Unpack(detail):
                return detail
        raise AssertionError(f"no {kind.__name__} in {status}")


async def refused(call: Awaitable[object]) -> Outcome:
    """Return the error of a call that is not a stream, and must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return Outcome(error=caught.value)


class Call:
    """A stream that is being read."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[Any, Any]") -> None:
        """Begin to read."""
        self._call = call
        self._seen = Outcome()
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @property
    def sequence(self) -> int:
        """The sequence of the newest event, 0 before the first."""
        return len(self._seen.events)

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return self._reader.done()

    @property
    def seen(self) -> Outcome:
        """What has come so far."""
        return self._seen

    async def outcome(self) -> Outcome:
        """Wait for the end."""
        await self._reader
        return self._seen

    async def until(self, condition: Callable[[pb.Event], bool], *, within_s: float = 30.0) -> pb.Event:
        """Wait for an event; raises TimeoutError, or AssertionError where the stream ends without one."""
        async with asyncio.timeout(within_s):
            index = 0
            while True:
                while index < len(self._seen.events):
                    if condition(self._seen.events[index]):
                        return self._seen.events[index]
                    index += 1
                assert not self._reader.done(), f"the stream ended: {self._seen}"
                self._news.clear()
                await self._news.wait()

    async def until_stage(self, stage: "pb.Stage.ValueType", *, within_s: float = 30.0) -> pb.Event:
        """Wait for the first event of a stage."""
        return await self.until(lambda event: event.progress.stage == stage, within_s=within_s)

    async def until_token(self, *, within_s: float = 30.0) -> pb.Event:
        """Wait for the first token."""
        return await self.until(lambda event: event.HasField("token"), within_s=within_s)

    def cancel(self) -> None:
        """Cancel the call, as a caller does who has lost interest."""
        self._call.cancel()

    async def _read(self) -> None:
        try:
            async for response in self._call:
                self._seen.events.append(response.event)
                self._seen.times_s.append(time.monotonic())
                self._news.set()
        except grpc.aio.AioRpcError as error:
            self._seen.error = error
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise
            self._seen.cancelled = True
        finally:
            self._call.cancel()
            self._news.set()


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Return settings for a service under test: a free port, a data folder of its own, and no gateway unless asked."""
    values: dict[str, Any] = {"grpc_address": "127.0.0.1:0", "http_address": "", "data_dir": folder}
    return Settings(**values | changes)


@contextlib.asynccontextmanager
async def started(
    settings: Settings, *, engine_command: tuple[str, ...] = ENGINE_COMMAND, ready: bool = True
) -> AsyncGenerator[Running]:
    """Run a service and connect to it; wait until it serves, unless `ready` is false."""
    async with (
        running(settings, engine_command=engine_command) as service,
        grpc.aio.insecure_channel(
            f"127.0.0.1:{service.port}", options=[("grpc.max_send_message_length", -1)]
        ) as channel,
    ):
        up = Running(service=service, channel=channel)
        if ready:
            await eventually(up.is_serving, within_s=60.0)
        yield up
