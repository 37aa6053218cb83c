"""The document of requests: what bodies hold, and what a stream of events looks like."""

from mondrian_server.gateway.answers import JSON
from mondrian_server.gateway.schemas import Schema, reference

_IMAGE: Schema = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
_FORM: Schema = {
    "type": "object",
    "description": "The files, and the fields of the config, each by itself or all as JSON in `config`.",
    "additionalProperties": False,
    "properties": {
        "image": {"type": "array", "items": _IMAGE, "description": "Image files, in the order in which they are seen."},
        "prompt": {"type": "string", "description": "The question or task."},
        "advisor": {"type": "string", "description": "The advisor, such as `ansel`."},
        "instructions": {"type": "string", "description": "Own instructions instead of an advisor's."},
        "model": {"type": "string", "description": "The model; by default the server's."},
        "config": {
            "type": "string",
            "contentMediaType": JSON,
            "description": "An `AnalysisConfig` as JSON, for what has no field of its own, such as `sampling`.",
        },
        "requestId": {"type": "string", "maxLength": 64, "description": "The same as `Idempotency-Key`."},
    },
}


def _body(message: str, description: str) -> Schema:
    return {
        "required": True,
        "description": description,
        "content": {"multipart/form-data": {"schema": _FORM}, JSON: {"schema": reference(message)}},
    }


_HOW = (
    "A form with the image files (at most 25 MiB), or proto3 JSON with images in base64 (at most 33 MiB). Field names "
    "may be in camel case or as in the contract; 64-bit integers are strings, durations such as `1.5s`."
)
CREATE_BODY = _body("CreateAnalysisRequest", _HOW)
ANALYZE_BODY = _body("AnalyzeRequest", _HOW)
CANCEL_BODY: Schema = {"required": False, "content": {JSON: {"schema": {"type": "object"}}}}

EVENTS: Schema = {
    "type": "string",
    "description": (
        "Server-sent events. `id` is the sequence, `event` the name of the payload (`accepted`, `progress`, `token`, "
        "`completed`, `failed`, `cancelled`), `data` an `Event` in proto3 JSON on one line. A stream that must end "
        "before the analysis does ends with an event `interrupted`, without an id, whose data is an `Error`: reconnect "
        "with `Last-Event-ID`. Comments only keep the connection open."
    ),
    "examples": [
        'retry: 2000\nid: 1\nevent: accepted\ndata: {"sequence":1,…}\n\n'
        'id: 2\nevent: progress\ndata: {"sequence":2,"progress":{"stage":"STAGE_GENERATING",…},…}\n\n'
        'id: 3\nevent: token\ndata: {"sequence":3,"token":{"text":"The",…},…}\n\n'
    ],
}
