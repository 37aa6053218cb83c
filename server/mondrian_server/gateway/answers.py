"""Answers: what a route may answer, as a response and in the OpenAPI document."""

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message
from starlette.responses import Response

from mondrian_server.gateway.refusals import Refusal
from mondrian_server.gateway.schemas import Schema, reference
from mondrian_server.gateway.wire_json import to_body, to_dict

JSON = "application/json"

_REASONS = {
    400: "The request is malformed or out of range; `details` names the field.",
    401: "The key is missing or wrong.",
    403: "The caller may not do this, or its page comes from an origin that is not allowed.",
    404: "There is no such thing, or it belongs to another caller.",
    408: "The body did not arrive in time.",
    409: "The analysis is still active: cancel it first.",
    410: "The events have been deleted because of their age or size.",
    413: "The body is larger than the limit.",
    415: "The body is neither `multipart/form-data` nor `application/json`.",
    421: "The name in `Host` is not one of this service.",
    422: "The `Idempotency-Key` stands for another request already.",
    429: "There is too much to do, in all or for this caller; `Retry-After` says when to come back.",
    499: "The analysis was cancelled by somebody else.",
    500: "The engine or the service has a defect.",
    501: "The server is older than this route.",
    503: "The engine, the log or the server is not available at present; `Retry-After` says when to come back.",
    504: "The server did not answer in time, or the analysis had no token when its time was over.",
}
ALWAYS = (400, 401, 403, 421, 429, 500, 501, 503, 504)
"""What every route of the API may answer beside its own."""

_RETRY_AFTER: Schema = {
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds until a retry may help."}
}


def json_answer(message: Message, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a message as the response."""
    return Response(to_body(to_dict(message)), status, headers, media_type=JSON)


def refused(error: Refusal) -> Response:
    """Return the response of a refusal."""
    return Response(to_body(error.body), error.http_status, error.headers, media_type=JSON)


def told(message: str, description: str, **headers: str) -> dict[str, Any]:
    """Return the document's entry of an answer that is a message."""
    return content(JSON, reference(message), description, **headers)


def content(media_type: str, schema: Schema, description: str, **headers: str) -> dict[str, Any]:
    """Return the document's entry of an answer with a content; headers by their names, each with its meaning."""
    entry: dict[str, Any] = {"description": description, "content": {media_type: {"schema": schema}}}
    if headers:
        entry["headers"] = {
            name.replace("_", "-"): {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in headers.items()
        }
    return entry


def errors(*statuses: int, always: Iterable[int] = ALWAYS) -> dict[int | str, dict[str, Any]]:
    """Return the document's entries of a route's errors."""
    entries: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *always}):
        entry: dict[str, Any] = {
            "description": _REASONS[status],
            "content": {JSON: {"schema": reference("Error")}},
        }
        if status in (429, 503):
            entry["headers"] = _RETRY_AFTER
        entries[status] = entry
    return entries


def pretty(values: object) -> str:
    """Return values as JSON for people."""
    return json.dumps(values, ensure_ascii=False, indent=2)
