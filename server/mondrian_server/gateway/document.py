"""The OpenAPI document: FastAPI's, with the schemas of the contract and without answers that never come."""

import re
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from google.protobuf.descriptor import Descriptor
from google.rpc.status_pb2 import Status

from mondrian.v1 import advisor_service_pb2 as advisor_pb
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian.v1 import model_service_pb2 as model_pb
from mondrian_server.gateway.schemas import Schema, reference, schemas_of

DESCRIPTION = """Pictures and text in, live progress and every token out.

Create an analysis with `POST /v1/analyses` and follow it with `GET /v1/analyses/{id}/events`, or do both at once with
`POST /v1/analyze`. Whoever loses the connection goes on after the last event that it saw: nothing is missing and
nothing comes twice.

JSON is proto3 JSON of the contract `mondrian.v1`: camel case, enums by name, 64-bit integers as strings, durations as
`"1.5s"`; zeros and empty texts are written. Errors are `{"error": google.rpc.Status}`, whose `details` hold a stable
`reason`.
"""

_MESSAGES = (
    pb.Event.DESCRIPTOR,
    pb.Analysis.DESCRIPTOR,
    service_pb.AnalyzeRequest.DESCRIPTOR,
    service_pb.CreateAnalysisRequest.DESCRIPTOR,
    service_pb.ListAnalysesResponse.DESCRIPTOR,
    advisor_pb.ListAdvisorsResponse.DESCRIPTOR,
    model_pb.ListModelsResponse.DESCRIPTOR,
    cast("Descriptor", Status.DESCRIPTOR),
)
_PARAMETER = re.compile(r"{\w+}")
_ERROR: Schema = {
    "type": "object",
    "title": "Error",
    "properties": {"error": reference("Status")},
    "required": ["error"],
}


def make_document(app: FastAPI) -> dict[str, Any]:
    """Return the document of an application's routes."""
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    schemas = schemas_of(_MESSAGES) | {"Error": _ERROR}
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "Where the server has keys."}},
    }
    document["security"] = [{}, {"key": []}]
    for operations in document["paths"].values():
        for operation in operations.values():
            _correct(operation)
    return document


def methods_of(document: dict[str, Any], path: str) -> list[str]:
    """Return the methods that a path takes; none where the document has no such path."""
    for template, operations in document["paths"].items():
        if re.fullmatch(_PARAMETER.sub("[^/:]+", template), path):
            return sorted(map(str.upper, operations))
    return []


def _correct(operation: dict[str, Any]) -> None:
    """Drop what FastAPI adds for its own validation, which answers otherwise here."""
    unprocessable = operation["responses"].get("422")
    if unprocessable is not None and "HTTPValidationError" in str(unprocessable):
        del operation["responses"]["422"]
