"""Analyses over HTTP: each request as calls to the server, and their answers as responses."""

import uuid

from fastapi import Request
from google.protobuf.duration_pb2 import Duration
from starlette.responses import Response

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian_server.gateway.answers import JSON, json_answer
from mondrian_server.gateway.bodies import Intake
from mondrian_server.gateway.clients import unless_gone
from mondrian_server.gateway.connection import Connection, Metadata, Parcel, answer, caller_metadata
from mondrian_server.gateway.event_stream import EventStream, Streams
from mondrian_server.gateway.following import Beginning, Following, patiently
from mondrian_server.gateway.options import Limits
from mondrian_server.gateway.refusals import cancelled, from_status, leaving
from mondrian_server.gateway.requests import read_request

_SSE = "text/event-stream"


class Analyses:
    """The analyses of the server. Each method answers one route; all raise Refusal."""

    def __init__(self, connection: Connection, streams: Streams, limits: Limits, *, keys_needed: bool) -> None:
        """Answer for a server; where it needs keys, a caller's is looked at before the body of a request is read."""
        self._connection = connection
        self._keys_needed = keys_needed
        self._stub = connection.analyses
        self._streams = streams
        self._limits = limits
        self._intake = Intake(limits, shared=keys_needed)

    async def create(self, request: Request, key: str | None) -> Response:
        """Create an analysis that runs by itself."""
        metadata = await self._caller(request)
        message = await read_request(request, self._intake, self._limits, service_pb.CreateAnalysisRequest, key)
        # However often the call must be made, one analysis comes of it.
        message.request_id = message.request_id or str(uuid.uuid4())
        response = await patiently(
            lambda: self._stub.CreateAnalysis(message, metadata=metadata, timeout=self._limits.call_limit_s),
            self._limits,
        )
        location = f"/v1/{response.analysis.name}"
        return json_answer(response.analysis, 201, {"Location": location})

    async def analyze(self, request: Request, key: str | None) -> Response:
        """Create an analysis and answer with its events, or with what came of it."""
        metadata = await self._caller(request)
        message = await read_request(request, self._intake, self._limits, service_pb.AnalyzeRequest, key)
        message.request_id = message.request_id or str(uuid.uuid4())
        if not message.HasField("disconnect_grace"):
            message.disconnect_grace.CopyFrom(Duration(seconds=self._limits.disconnect_grace_s))
        parcel = Parcel(message)
        del message
        begin = Beginning(open=lambda: self._connection.analyze(parcel, metadata), forget=parcel.drop)
        following = self._following(metadata, begin=begin)
        if _wants_json(request.headers.get("accept", "")):
            return await self._result(request, following, metadata)
        return await self._stream(request, following)

    async def follow(self, request: Request, name: str, after_sequence: int) -> Response:
        """Answer with the events after a sequence; with nothing where there are and will be none."""
        metadata = caller_metadata(request.headers)
        # The next event of an active one may be seconds away: then the stream begins without it.
        begins = after_sequence > 0 and await self._is_active(name, metadata)
        following = self._following(metadata, name=name, after_sequence=after_sequence)
        if begins:
            following.begun()
            return EventStream(following, None, self._streams, self._limits)
        return await self._stream(request, following)

    async def get(self, request: Request, name: str) -> Response:
        """Get an analysis as it stands now."""
        return json_answer(await self._get(name, caller_metadata(request.headers)))

    async def list(self, request: Request, message: service_pb.ListAnalysesRequest) -> Response:
        """List the caller's analyses."""
        metadata = caller_metadata(request.headers)
        call = self._stub.ListAnalyses(message, metadata=metadata, timeout=self._limits.call_limit_s)
        return json_answer(await answer(call))

    async def cancel(self, request: Request, name: str) -> Response:
        """Cancel an analysis."""
        message = service_pb.CancelAnalysisRequest(name=name)
        metadata = caller_metadata(request.headers)
        call = self._stub.CancelAnalysis(message, metadata=metadata, timeout=self._limits.call_limit_s)
        return json_answer((await answer(call)).analysis)

    async def delete(self, request: Request, name: str) -> Response:
        """Delete an ended analysis."""
        message = service_pb.DeleteAnalysisRequest(name=name)
        metadata = caller_metadata(request.headers)
        await answer(self._stub.DeleteAnalysis(message, metadata=metadata, timeout=self._limits.call_limit_s))
        return Response(status_code=204)

    async def _caller(self, request: Request) -> Metadata:
        """Return the caller's metadata; a key that is none is refused before anything of the body is kept or parsed."""
        metadata = caller_metadata(request.headers)
        if self._keys_needed:
            limit_s = self._limits.call_limit_s
            await patiently(lambda: self._connection.ask_for_key(metadata, timeout_s=limit_s), self._limits)
        return metadata

    def _following(
        self,
        metadata: Metadata,
        *,
        name: str = "",
        after_sequence: int = 0,
        begin: Beginning | None = None,
    ) -> Following:
        following = Following(
            lambda name, after: self._stub.WatchAnalysis(
                service_pb.WatchAnalysisRequest(name=name, after_sequence=after), metadata=metadata
            ),
            self._limits,
            name=name,
            after_sequence=after_sequence,
            begin=begin,
        )
        self._streams.add(following)
        return following

    async def _stream(self, request: Request, following: Following) -> Response:
        """Answer with a stream once its first event is there, so that errors before it have their own status."""
        try:
            first = await unless_gone(request, following.next())
            if first is not None:
                return EventStream(following, first, self._streams, self._limits)
        except BaseException:
            self._streams.discard(following)
            raise
        self._streams.discard(following)
        return Response(status_code=204)

    async def _result(self, request: Request, following: Following, metadata: Metadata) -> Response:
        """Answer with the analysis at its end; a client that goes sooner lets it go."""
        try:
            last = await unless_gone(request, _end_of(following))
        finally:
            self._streams.discard(following)
        return await self._answer_to(last, metadata)

    async def _answer_to(self, last: pb.Event | None, metadata: Metadata) -> Response:
        if last is None:
            raise leaving()
        if last.HasField("failed"):
            raise from_status(last.failed.error)
        if last.HasField("cancelled"):
            raise cancelled()
        location = {"Content-Location": f"/v1/{last.analysis}"}
        return json_answer(await self._get(last.analysis, metadata), headers=location)

    async def _get(self, name: str, metadata: Metadata) -> pb.Analysis:
        message = service_pb.GetAnalysisRequest(name=name)
        call = self._stub.GetAnalysis(message, metadata=metadata, timeout=self._limits.call_limit_s)
        return (await answer(call)).analysis

    async def _is_active(self, name: str, metadata: Metadata) -> bool:
        message = service_pb.GetAnalysisRequest(name=name)
        response = await patiently(
            lambda: self._stub.GetAnalysis(message, metadata=metadata, timeout=self._limits.call_limit_s), self._limits
        )
        return response.analysis.state == pb.ANALYSIS_STATE_ACTIVE


async def _end_of(following: Following) -> pb.Event | None:
    last = None
    async for event in following.events():
        last = event
    return last


def _wants_json(accept: str) -> bool:
    return JSON in accept and _SSE not in accept
