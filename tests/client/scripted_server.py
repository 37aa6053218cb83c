"""A real gRPC server with scripted streams: it says what a test wants said, when the test wants it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mondrian.v1 import advisor_service_pb2 as advisors_pb
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian.v1 import model_service_pb2 as models_pb
from mondrian.v1.advisor_service_pb2_grpc import AdvisorServiceServicer, add_AdvisorServiceServicer_to_server
from mondrian.v1.analysis_service_pb2 import AnalyzeRequest, AnalyzeResponse
from mondrian.v1.analysis_service_pb2_grpc import AnalysisServiceServicer, add_AnalysisServiceServicer_to_server
from mondrian.v1.model_service_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server

Context = aio.ServicerContext[Any, Any]
Script = Callable[[AnalyzeRequest, Context], AsyncIterator[pb.Event]]
WatchScript = Callable[[service_pb.WatchAnalysisRequest, Context], AsyncIterator[pb.Event]]
ANALYSIS = "analyses/a1"
PAGE = 2


class Tape:
    """Makes the events of one analysis, numbered 1, 2, 3, …."""

    def __init__(self) -> None:
        self.sequence = 0

    def _event(self, **payload: Any) -> pb.Event:
        self.sequence += 1
        time = Timestamp(seconds=1_800_000_000 + self.sequence)
        return pb.Event(sequence=self.sequence, analysis=ANALYSIS, create_time=time, **payload)

    def accepted(self, **fields: Any) -> pb.Event:
        """Make the first event."""
        fields.setdefault("model", "models/mondrian-tiny")
        return self._event(accepted=pb.Accepted(**fields))

    def progress(self, stage: "pb.Stage.ValueType", message: str, fraction: float = 0.5, **fields: Any) -> pb.Event:
        """Tell where it is."""
        return self._event(progress=pb.Progress(stage=stage, message=message, fraction=fraction, **fields))

    def token(self, text: str, first_index: int = 0, token_count: int = 1, **fields: Any) -> pb.Event:
        """Text to append."""
        return self._event(token=pb.Token(text=text, first_index=first_index, token_count=token_count, **fields))

    def completed(self, text: str, **fields: Any) -> pb.Event:
        """Make the good end."""
        fields.setdefault("finish_reason", pb.FINISH_REASON_STOP)
        return self._event(completed=pb.Completed(text=text, **fields))

    def failed(self, status: Status, **fields: Any) -> pb.Event:
        """Make the bad end."""
        return self._event(failed=pb.Failed(error=status, **fields))

    def cancelled(self, **fields: Any) -> pb.Event:
        """Make the unwanted end."""
        return self._event(cancelled=pb.Cancelled(**fields))

    def unknown(self) -> pb.Event:
        """Make what a newer server may send: an event without a payload that this version knows."""
        return self._event()


def rich_status(
    code: grpc.StatusCode,
    message: str,
    *,
    reason: str,
    domain: str = "mondrian",
    field: str = "",
    retry_after_s: float | None = None,
) -> Status:
    """Make the status that the server makes for an error."""
    details: list[Message] = [ErrorInfo(reason=reason, domain=domain)]
    if field:
        details.append(BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=message)]))
    if retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry_after_s * 1e9))
        details.append(RetryInfo(retry_delay=delay))
    return Status(code=code.value[0], message=message, details=[_packed(detail) for detail in details])


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


async def abort(context: Context, status: Status) -> None:
    """End the call with a rich status."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(code, status.message)


def playing(*events: pb.Event, forever: bool = False) -> "Callable[[Message, Context], AsyncGenerator[pb.Event]]":
    """Return a script that sends the events, numbered as they stand, and then ends or waits for ever."""
    numbered: list[pb.Event] = []
    for sequence, event in enumerate(events, start=1):
        numbered.append(pb.Event())
        numbered[-1].CopyFrom(event)
        numbered[-1].sequence = sequence

    async def play(_request: Message, _context: Context) -> AsyncGenerator[pb.Event]:
        for event in numbered:
            yield event
        if forever:
            await asyncio.Event().wait()

    return play


class ScriptedServer(AnalysisServiceServicer, AdvisorServiceServicer, ModelServiceServicer):
    """Serves `script` for every analysis, `watch_script` for every watch, and what `advisors` and the like hold.

    A status in `refusals` is the answer to the next call that creates an analysis or asks for one; None is silence.
    """

    def __init__(self) -> None:
        self.script: Script = playing()
        self.watch_script: WatchScript = playing()
        self.requests: list[AnalyzeRequest] = []
        self.watches: list[service_pb.WatchAnalysisRequest] = []
        self.creations: list[service_pb.CreateAnalysisRequest] = []
        self.listings: list[service_pb.ListAnalysesRequest] = []
        self.refusals: list[Status | None] = []
        self.analyses: dict[str, pb.Analysis] = {}
        self.cancels: asyncio.Queue[str] = asyncio.Queue()
        self.times_left: list[float | None] = []
        self.endings: asyncio.Queue[str] = asyncio.Queue()
        self.advisors: Sequence[advisors_pb.Advisor] = ()
        self.models: Sequence[models_pb.Model] = ()
        self.health: Any = vars(grpc_health)["aio"].HealthServicer()
        self.address = ""
        self._server: aio.Server | None = None

    async def start(self, address: str = "127.0.0.1:0") -> None:
        """Listen."""
        server = aio.server(options=[("grpc.max_receive_message_length", 32 * 2**20), ("grpc.so_reuseport", 0)])
        add_AnalysisServiceServicer_to_server(self, server)
        add_AdvisorServiceServicer_to_server(self, server)
        add_ModelServiceServicer_to_server(self, server)
        vars(health_pb2_grpc)["add_HealthServicer_to_server"](self.health, server)
        self.address = f"127.0.0.1:{server.add_insecure_port(address)}"
        self._server = server
        await server.start()

    async def stop(self) -> None:
        """Drop every connection at once."""
        if self._server is not None:
            await self._server.stop(0)

    async def restart(self) -> None:
        """Drop every connection, and listen at the same address again."""
        await self.stop()
        await self.start(self.address)

    async def cancelled(self) -> str:
        """Wait until an analysis is cancelled by name, and return the name."""
        async with asyncio.timeout(5):
            return await self.cancels.get()

    async def set_ready(self, ready: bool) -> None:
        """Be SERVING, or not."""
        states: Any = health_pb2.HealthCheckResponse
        await self.health.set("", states.SERVING if ready else states.NOT_SERVING)

    async def ending(self) -> str:
        """Wait until the next call's handler has ended, and tell how."""
        async with asyncio.timeout(5):
            return await self.endings.get()

    async def Analyze(self, request: AnalyzeRequest, context: Context) -> AsyncIterator[AnalyzeResponse]:
        """Play the script."""
        self.requests.append(request)
        self.times_left.append(context.time_remaining())
        ending = "cancelled"
        try:
            async for event in self.script(request, context):
                yield AnalyzeResponse(event=event)
            ending = "finished"
        except aio.AbortError:
            ending = "aborted"
            raise
        finally:
            self.endings.put_nowait(ending)

    async def WatchAnalysis(
        self, request: service_pb.WatchAnalysisRequest, context: Context
    ) -> AsyncIterator[service_pb.WatchAnalysisResponse]:
        """Play the script of watches."""
        self.watches.append(request)
        self.times_left.append(context.time_remaining())
        ending = "watch cancelled"
        try:
            async for event in self.watch_script(request, context):
                yield service_pb.WatchAnalysisResponse(event=event)
            ending = "watch finished"
        except aio.AbortError:
            ending = "watch aborted"
            raise
        finally:
            self.endings.put_nowait(ending)

    async def CreateAnalysis(
        self, request: service_pb.CreateAnalysisRequest, context: Context
    ) -> service_pb.CreateAnalysisResponse:
        """Create one analysis, whose name is always the same."""
        self.creations.append(request)
        await self._refuse(context)
        analysis = pb.Analysis(name=ANALYSIS, state=pb.ANALYSIS_STATE_ACTIVE, request_id=request.request_id)
        analysis.config.CopyFrom(request.config)
        analysis.config.ClearField("images")
        self.analyses[analysis.name] = analysis
        return service_pb.CreateAnalysisResponse(analysis=analysis)

    async def GetAnalysis(
        self, request: service_pb.GetAnalysisRequest, context: Context
    ) -> service_pb.GetAnalysisResponse:
        """Find by name."""
        return service_pb.GetAnalysisResponse(analysis=await self._find(request.name, context))

    async def ListAnalyses(
        self, request: service_pb.ListAnalysesRequest, context: Context
    ) -> service_pb.ListAnalysesResponse:
        """List in pages of two."""
        self.listings.append(request)
        wanted = [
            analysis for analysis in self.analyses.values() if analysis.state in (request.states or [analysis.state])
        ]
        page, token = _page(wanted, request.page_token)
        return service_pb.ListAnalysesResponse(analyses=page, next_page_token=token)

    async def CancelAnalysis(
        self, request: service_pb.CancelAnalysisRequest, context: Context
    ) -> service_pb.CancelAnalysisResponse:
        """Take note of the cancel."""
        self.cancels.put_nowait(request.name)
        analysis = self.analyses.get(request.name, pb.Analysis(name=request.name, state=pb.ANALYSIS_STATE_CANCELLED))
        if analysis.state == pb.ANALYSIS_STATE_ACTIVE:
            analysis.state = pb.ANALYSIS_STATE_CANCELLED
        return service_pb.CancelAnalysisResponse(analysis=analysis)

    async def DeleteAnalysis(
        self, request: service_pb.DeleteAnalysisRequest, context: Context
    ) -> service_pb.DeleteAnalysisResponse:
        """Delete what has ended."""
        analysis = await self._find(request.name, context)
        if analysis.state == pb.ANALYSIS_STATE_ACTIVE:
            code = grpc.StatusCode.FAILED_PRECONDITION
            await abort(context, rich_status(code, f"{request.name} is active", reason="ANALYSIS_ACTIVE"))
        del self.analyses[request.name]
        return service_pb.DeleteAnalysisResponse()

    async def _find(self, name: str, context: Context) -> pb.Analysis:
        await self._refuse(context)
        if name not in self.analyses:
            code = grpc.StatusCode.NOT_FOUND
            await abort(context, rich_status(code, f"there is no analysis {name!r}", reason="ANALYSIS_NOT_FOUND"))
        return self.analyses[name]

    async def _refuse(self, context: Context) -> None:
        if not self.refusals:
            return
        if (refusal := self.refusals.pop(0)) is None:
            await asyncio.Event().wait()
        else:
            await abort(context, refusal)

    async def ListAdvisors(self, request: Any, context: Context) -> advisors_pb.ListAdvisorsResponse:
        """List in pages of two."""
        page, token = _page(self.advisors, request.page_token)
        return advisors_pb.ListAdvisorsResponse(advisors=page, next_page_token=token)

    async def ListModels(self, request: Any, context: Context) -> models_pb.ListModelsResponse:
        """List in pages of two."""
        page, token = _page(self.models, request.page_token)
        return models_pb.ListModelsResponse(models=page, next_page_token=token)

    async def GetModel(self, request: Any, context: Context) -> models_pb.GetModelResponse:
        """Find by name."""
        for model in self.models:
            if model.name == request.name:
                return models_pb.GetModelResponse(model=model)
        status = rich_status(grpc.StatusCode.NOT_FOUND, f"no model {request.name}", reason="MODEL_NOT_FOUND")
        await abort(context, status)
        raise AssertionError


def _page(items: Sequence[Any], token: str) -> tuple[Sequence[Any], str]:
    start = int(token or 0)
    end = start + PAGE
    return items[start:end], str(end) if end < len(items) else ""


@asynccontextmanager
async def scripted_server() -> AsyncGenerator[ScriptedServer]:
    """Run a server for the length of a block."""
    server = ScriptedServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
