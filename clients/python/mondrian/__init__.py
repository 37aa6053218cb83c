"""The Mondrian client: pictures and text in, live progress and every token out.

    async with mondrian.AsyncClient() as client:
        async for event in client.analyze("Describe this image.", images=["photo.jpg"]):
            match event:
                case mondrian.Progress():
                    print(event.message)
                case mondrian.Token():
                    print(event.text, end="")
                case mondrian.Accepted() | mondrian.Completed():
                    pass

`Client` is the same without `async`. The generated messages and stubs are in `mondrian.v1`.
"""

from mondrian._access import Tls
from mondrian._analysis import Analysis
from mondrian._async_client import AsyncClient
from mondrian._async_stream import AsyncAnalysisStream, AsyncEventStream
from mondrian._catalogue import Advisor, Model, ModelState
from mondrian._channel import DEFAULT_ADDRESS
from mondrian._client import Client
from mondrian._errors import (
    AnalysisActive,
    AnalysisCancelled,
    AnalysisNotFound,
    ConnectionFailed,
    ContextExceeded,
    DeadlineExceeded,
    EngineCrashed,
    EngineUnavailable,
    EventsExpired,
    FailedPrecondition,
    FieldViolation,
    GenerationFailed,
    InternalError,
    InvalidImage,
    InvalidRequest,
    KeyRevoked,
    LogUnavailable,
    ModelNotFound,
    MondrianError,
    NotFound,
    PermissionDenied,
    RequestIdReused,
    ResourceExhausted,
    ShuttingDown,
    TooManyAnalyses,
    TooManyBytes,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from mondrian._events import Accepted, Completed, Event, Progress, Result, Token
from mondrian._images import ImageInput
from mondrian._options import AnalyzeOptions, Delivery, Sampling, TokenDetail
from mondrian._results import AnalysisState, FinishReason, Stage, Timings, Usage
from mondrian._stream import AnalysisStream, EventStream

__all__ = [
    "DEFAULT_ADDRESS",
    "Accepted",
    "Advisor",
    "Analysis",
    "AnalysisActive",
    "AnalysisCancelled",
    "AnalysisNotFound",
    "AnalysisState",
    "AnalysisStream",
    "AnalyzeOptions",
    "AsyncAnalysisStream",
    "AsyncClient",
    "AsyncEventStream",
    "Client",
    "Completed",
    "ConnectionFailed",
    "ContextExceeded",
    "DeadlineExceeded",
    "Delivery",
    "EngineCrashed",
    "EngineUnavailable",
    "Event",
    "EventStream",
    "EventsExpired",
    "FailedPrecondition",
    "FieldViolation",
    "FinishReason",
    "GenerationFailed",
    "ImageInput",
    "InternalError",
    "InvalidImage",
    "InvalidRequest",
    "KeyRevoked",
    "LogUnavailable",
    "Model",
    "ModelNotFound",
    "ModelState",
    "MondrianError",
    "NotFound",
    "PermissionDenied",
    "Progress",
    "RequestIdReused",
    "ResourceExhausted",
    "Result",
    "Sampling",
    "ShuttingDown",
    "Stage",
    "Timings",
    "Tls",
    "Token",
    "TokenDetail",
    "TooManyAnalyses",
    "TooManyBytes",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "Usage",
]
