"""Errors: everything that Mondrian tells a caller went wrong, as one tree.

MondrianError                   code                 reason              retry
├── InvalidRequest              INVALID_ARGUMENT     INVALID_REQUEST     no
│   ├── InvalidImage            INVALID_ARGUMENT     INVALID_IMAGE       no
│   ├── ContextExceeded         INVALID_ARGUMENT     CONTEXT_EXCEEDED    no
│   └── RequestIdReused         INVALID_ARGUMENT     REQUEST_ID_REUSED   no
├── Unauthenticated             UNAUTHENTICATED      UNAUTHENTICATED     no
├── KeyRevoked                  PERMISSION_DENIED    KEY_REVOKED         no
├── AnalysisNotFound            NOT_FOUND            ANALYSIS_NOT_FOUND  no
├── ModelNotFound               NOT_FOUND            MODEL_NOT_FOUND     no
├── AnalysisActive              FAILED_PRECONDITION  ANALYSIS_ACTIVE     no
├── EventsExpired               FAILED_PRECONDITION  EVENTS_EXPIRED      no
├── TooManyAnalyses             RESOURCE_EXHAUSTED   TOO_MANY_ANALYSES   yes
├── TooManyBytes                RESOURCE_EXHAUSTED   TOO_MANY_BYTES      yes
├── TooManyRequests             RESOURCE_EXHAUSTED   TOO_MANY_REQUESTS   yes
├── DeadlineExceeded            DEADLINE_EXCEEDED    DEADLINE_EXCEEDED   no
├── EngineUnavailable           UNAVAILABLE          ENGINE_UNAVAILABLE  yes
├── LogUnavailable              UNAVAILABLE          LOG_UNAVAILABLE     yes
├── ShuttingDown                UNAVAILABLE          SHUTTING_DOWN       yes
├── EngineCrashed               INTERNAL             ENGINE_CRASHED      no
├── GenerationFailed            INTERNAL             GENERATION_FAILED   no
└── InternalError               INTERNAL             INTERNAL            no

StartupError is not in the tree: it ends `mondrian serve` with one line before anybody calls.
"""

import enum
from typing import ClassVar


class Code(enum.Enum):
    """The canonical code of an error; values are the numbers of `google.rpc.Code`."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class StartupError(Exception):
    """The service cannot start; the message is the one line that the operator reads."""


class MondrianError(Exception):
    """An error that a caller is told, with a stable reason."""

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, field: str = "", retry_after_s: float | None = None):
        """Keep what the caller is told.

        Args:
            message: one sentence for people.
            field: the path of the request's field at fault, such as `config.images[0]`.
            retry_after_s: seconds after which a retry may help; None where it will not.
        """
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidRequest(MondrianError):
    """A field is missing, malformed or out of range."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class InvalidImage(InvalidRequest):
    """An image cannot be decoded, or is larger than allowed."""

    reason = "INVALID_IMAGE"


class ContextExceeded(InvalidRequest):
    """Prompt, images and `max_tokens` do not fit the model's context."""

    reason = "CONTEXT_EXCEEDED"


class RequestIdReused(InvalidRequest):
    """The request id stands for another request already."""

    reason = "REQUEST_ID_REUSED"


class Unauthenticated(MondrianError):
    """The call has no API key and no client certificate that this server knows."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class KeyRevoked(MondrianError):
    """The API key was good once."""

    code = Code.PERMISSION_DENIED
    reason = "KEY_REVOKED"


class AnalysisNotFound(MondrianError):
    """There is no such analysis, or it is not the caller's."""

    code = Code.NOT_FOUND
    reason = "ANALYSIS_NOT_FOUND"


class AnalysisActive(MondrianError):
    """The analysis has not ended, and what was asked needs that."""

    code = Code.FAILED_PRECONDITION
    reason = "ANALYSIS_ACTIVE"


class EventsExpired(MondrianError):
    """The events were deleted because of their age or size."""

    code = Code.FAILED_PRECONDITION
    reason = "EVENTS_EXPIRED"


class LogUnavailable(MondrianError):
    """Events cannot be kept at present, as when the disk is full."""

    code = Code.UNAVAILABLE
    reason = "LOG_UNAVAILABLE"


class EngineCrashed(MondrianError):
    """The engine crashed again and again over this analysis."""

    reason = "ENGINE_CRASHED"


class ModelNotFound(MondrianError):
    """The server has no such model."""

    code = Code.NOT_FOUND
    reason = "MODEL_NOT_FOUND"


class TooManyAnalyses(MondrianError):
    """The queue is full, or the caller's part of it."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_ANALYSES"


class TooManyBytes(MondrianError):
    """The waiting images fill the room set aside for them, or the caller's fill its part."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_BYTES"


class TooManyRequests(MondrianError):
    """The caller asks more often than it may, or sends more at once than can be received."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_REQUESTS"


class DeadlineExceeded(MondrianError):
    """The time was over before the first token, or before the request had come whole."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class EngineUnavailable(MondrianError):
    """The engine cannot be started at present."""

    code = Code.UNAVAILABLE
    reason = "ENGINE_UNAVAILABLE"


class ShuttingDown(MondrianError):
    """The server is ending."""

    code = Code.UNAVAILABLE
    reason = "SHUTTING_DOWN"


class GenerationFailed(MondrianError):
    """The model raised while it worked on this analysis."""

    reason = "GENERATION_FAILED"


class InternalError(MondrianError):
    """A defect of the server."""
