"""Errors: everything that can go wrong with a call, as one tree.

MondrianError                   any other code       -
├── InvalidRequest              INVALID_ARGUMENT     INVALID_REQUEST
│   ├── InvalidImage            INVALID_ARGUMENT     INVALID_IMAGE
│   ├── ContextExceeded         INVALID_ARGUMENT     CONTEXT_EXCEEDED
│   └── RequestIdReused         INVALID_ARGUMENT     REQUEST_ID_REUSED
├── Unauthenticated             UNAUTHENTICATED      UNAUTHENTICATED
├── PermissionDenied            PERMISSION_DENIED    -
│   └── KeyRevoked              PERMISSION_DENIED    KEY_REVOKED
├── NotFound                    NOT_FOUND            -
│   ├── AnalysisNotFound        NOT_FOUND            ANALYSIS_NOT_FOUND
│   └── ModelNotFound           NOT_FOUND            MODEL_NOT_FOUND
├── FailedPrecondition          FAILED_PRECONDITION  -
│   ├── AnalysisActive          FAILED_PRECONDITION  ANALYSIS_ACTIVE
│   └── EventsExpired           FAILED_PRECONDITION  EVENTS_EXPIRED
├── ResourceExhausted           RESOURCE_EXHAUSTED   -
│   ├── TooManyAnalyses         RESOURCE_EXHAUSTED   TOO_MANY_ANALYSES
│   ├── TooManyBytes            RESOURCE_EXHAUSTED   TOO_MANY_BYTES
│   └── TooManyRequests         RESOURCE_EXHAUSTED   TOO_MANY_REQUESTS
├── DeadlineExceeded            DEADLINE_EXCEEDED    DEADLINE_EXCEEDED
├── Unavailable                 UNAVAILABLE          -
│   ├── EngineUnavailable       UNAVAILABLE          ENGINE_UNAVAILABLE
│   ├── LogUnavailable          UNAVAILABLE          LOG_UNAVAILABLE
│   ├── ShuttingDown            UNAVAILABLE          SHUTTING_DOWN
│   └── ConnectionFailed        UNAVAILABLE          CONNECTION_FAILED (no server was reached, or it was lost)
├── AnalysisCancelled           CANCELLED            -
└── InternalError               INTERNAL             INTERNAL
    ├── EngineCrashed           INTERNAL             ENGINE_CRASHED
    └── GenerationFailed        INTERNAL             GENERATION_FAILED

A reason that this version does not know falls back on the class of its code. An image file that cannot be read is
Python's own `OSError`, a closed client a `RuntimeError`, an argument of the wrong type a `TypeError`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mondrian._results import Stage, Timings, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """A field of the request that was refused."""

    field: str
    """The path of the field, such as `config.images[0]`."""
    description: str
    """What is wrong with it, in a sentence."""


class MondrianError(Exception):
    """A call that failed; `str()` gives the sentence for people."""

    code: str = "UNKNOWN"
    """The canonical code, such as `UNAVAILABLE`."""
    reason: str = ""
    """The stable reason, such as `ENGINE_UNAVAILABLE`; empty where the server gave none."""

    codes: ClassVar[tuple[str, ...]] = ()
    """The codes that this class, or a class below it, stands for."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        field_violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
        analysis: str = "",
        usage: Usage | None = None,
        timings: Timings | None = None,
    ):
        """Keep what the server told.

        Args:
            message: one sentence for people.
            code: the canonical code, where it is not the class's own.
            reason: the stable reason, where it is not the class's own.
            field_violations: the fields that were refused.
            retry_after_s: seconds after which a retry may help; None where it will not, or nobody knows.
            analysis: the analysis that failed, `analyses/{id}`; empty where none had been accepted.
            usage: tokens in and out, as far as the analysis came.
            timings: where the time went.
        """
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.reason = reason or type(self).reason
        self.field_violations = field_violations
        self.retry_after_s = retry_after_s
        self.analysis = analysis
        self.usage = usage
        self.timings = timings


class InvalidRequest(MondrianError):
    """A field is missing, malformed or out of range; `field_violations` names it."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"
    codes = ("INVALID_ARGUMENT", "OUT_OF_RANGE")


class InvalidImage(InvalidRequest):
    """An image cannot be decoded, or is larger than allowed."""

    reason = "INVALID_IMAGE"


class ContextExceeded(InvalidRequest):
    """Prompt, images and `max_tokens` do not fit the model's context."""

    reason = "CONTEXT_EXCEEDED"


class RequestIdReused(InvalidRequest):
    """The `request_id` stands for another request already."""

    reason = "REQUEST_ID_REUSED"


class Unauthenticated(MondrianError):
    """The server does not know the API key or the client certificate, or was shown none."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"
    codes = ("UNAUTHENTICATED",)


class PermissionDenied(MondrianError):
    """The server knows the caller, and refuses it."""

    code = "PERMISSION_DENIED"
    codes = ("PERMISSION_DENIED",)


class KeyRevoked(PermissionDenied):
    """The API key was good once."""

    reason = "KEY_REVOKED"


class NotFound(MondrianError):
    """The server has no such thing."""

    code = "NOT_FOUND"
    codes = ("NOT_FOUND",)


class AnalysisNotFound(NotFound):
    """There is no such analysis, or it is somebody else's."""

    reason = "ANALYSIS_NOT_FOUND"


class ModelNotFound(NotFound):
    """The server has no such model."""

    reason = "MODEL_NOT_FOUND"


class FailedPrecondition(MondrianError):
    """The thing is not in the state that the call needs."""

    code = "FAILED_PRECONDITION"
    codes = ("FAILED_PRECONDITION",)


class AnalysisActive(FailedPrecondition):
    """Only an analysis that has ended can be deleted; cancel it first."""

    reason = "ANALYSIS_ACTIVE"


class EventsExpired(FailedPrecondition):
    """The events were deleted because of their age or size; the analysis can no longer be watched."""

    reason = "EVENTS_EXPIRED"


class ResourceExhausted(MondrianError):
    """The server takes no more at present, or the request is larger than it ever takes."""

    code = "RESOURCE_EXHAUSTED"
    codes = ("RESOURCE_EXHAUSTED",)


class TooManyAnalyses(ResourceExhausted):
    """The queue is full, or the caller's part of it."""

    reason = "TOO_MANY_ANALYSES"


class TooManyBytes(ResourceExhausted):
    """The waiting images fill the room set aside for them, or the caller's fill its part."""

    reason = "TOO_MANY_BYTES"


class TooManyRequests(ResourceExhausted):
    """The caller asked more often than it may."""

    reason = "TOO_MANY_REQUESTS"


class DeadlineExceeded(MondrianError):
    """The time was over before the first token, or before the server answered.

    `__cause__` is the refusal or the loss after which the last try began, where there was one.
    """

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"
    codes = ("DEADLINE_EXCEEDED",)


class Unavailable(MondrianError):
    """The service cannot answer at present; a retry may help."""

    code = "UNAVAILABLE"
    codes = ("UNAVAILABLE",)


class EngineUnavailable(Unavailable):
    """The engine cannot be started at present."""

    reason = "ENGINE_UNAVAILABLE"


class LogUnavailable(Unavailable):
    """Events cannot be kept at present, as when the disk is full."""

    reason = "LOG_UNAVAILABLE"


class ShuttingDown(Unavailable):
    """The server is ending; analyses that are active go on at its next start."""

    reason = "SHUTTING_DOWN"


class ConnectionFailed(Unavailable):
    """No server was reached, or the connection to it was lost."""

    reason = "CONNECTION_FAILED"


class AnalysisCancelled(MondrianError):
    """The analysis was cancelled: by this program, or by somebody else."""

    code = "CANCELLED"
    codes = ("CANCELLED",)
    stage: Stage = Stage.UNKNOWN
    """The stage that it was in, where the server told."""


class InternalError(MondrianError):
    """A defect of the server."""

    code = "INTERNAL"
    reason = "INTERNAL"
    codes = ("INTERNAL", "UNKNOWN", "DATA_LOSS")


class EngineCrashed(InternalError):
    """The engine crashed three times over this analysis."""

    reason = "ENGINE_CRASHED"


class GenerationFailed(InternalError):
    """The model raised while it worked on this analysis."""

    reason = "GENERATION_FAILED"


def _descendants(cls: type[MondrianError]) -> Iterator[type[MondrianError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


_TREE = tuple(_descendants(MondrianError))
_BY_REASON = {cls.reason: cls for cls in _TREE if cls.reason}
_BY_CODE = {code: cls for cls in reversed(_TREE) for code in vars(cls).get("codes", ())}


def error_class(code: str, reason: str) -> type[MondrianError]:
    """Return the class for a reason, or for its code where the reason is unknown or belongs to another code."""
    by_code = _BY_CODE.get(code, MondrianError)
    by_reason = _BY_REASON.get(reason, by_code)
    return by_reason if issubclass(by_reason, by_code) else by_code
