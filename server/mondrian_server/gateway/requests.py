"""Requests: bodies as the messages that the server is sent."""

import base64
import binascii
import json
from typing import Any, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from starlette.requests import Request

from mondrian.v1 import analysis_service_pb2 as pb
from mondrian.v1.analysis_pb2 import AnalysisConfig
from mondrian_server.gateway.bodies import Intake
from mondrian_server.gateway.forms import CONFIG, REQUEST_ID, TEXTS, Form, read_form
from mondrian_server.gateway.options import Limits
from mondrian_server.gateway.refusals import invalid, refusal

FORM_TYPE = "multipart/form-data"
JSON_TYPE = "application/json"

R = TypeVar("R", pb.AnalyzeRequest, pb.CreateAnalysisRequest)
_M = TypeVar("_M", bound=Message)

# What `json` and protobuf's parser raise for values that nobody meant.
_MALFORMED = (json_format.ParseError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
_MAX_REASON_CHARACTERS = 200
_MAX_VALUES = 250_000
"""A bound on what JSON can hold: as Python's objects, small values take many times their bytes."""


async def read_request(request: Request, intake: Intake, limits: Limits, kind: type[R], key: str | None) -> R:
    """Read what is to be analysed from a form or from JSON; raises Refusal.

    Args:
        request: the request, nothing of whose body has been read.
        intake: what the body counts in.
        limits: how large it may be.
        kind: the message to make.
        key: the `Idempotency-Key`, which becomes the `request_id`.

    """
    content_type = request.headers.get("content-type", "")
    match content_type.partition(";")[0].strip().lower():
        case "multipart/form-data":
            with intake.open(request, limits.max_multipart_bytes) as body:
                message = from_form(await read_form(body, content_type, max_parts=limits.max_parts), kind)
        case "application/json":
            with intake.open(request, limits.max_json_bytes) as body:
                message = from_json(await body.whole(), kind)
        case _:
            text = f"send {FORM_TYPE} or {JSON_TYPE}"
            raise refusal(415, Code.INVALID_ARGUMENT, "UNSUPPORTED_MEDIA_TYPE", text, field="Content-Type")
    if key:
        if message.request_id not in ("", key):
            raise invalid("differs from the body's requestId", field="Idempotency-Key")
        message.request_id = key
    return message


def from_form(form: Form, kind: type[R]) -> R:
    """Return the message of a form: the files, and the fields of the config by themselves or all as JSON."""
    message = kind(request_id=_checked(form.text(REQUEST_ID) or "", REQUEST_ID))
    config = form.text(CONFIG)
    if config is not None:
        message.config.CopyFrom(_config(_parsed(config.encode(), CONFIG), CONFIG))
    message.config.SetInParent()
    for name in TEXTS:
        text = form.text(name)
        if text is None:
            continue
        if getattr(message.config, name):
            raise invalid("stands in the form and in its config", field=name)
        setattr(message.config, name, text)
    for image in form.take_images():
        message.config.images.add(data=image)
    return message


def from_json(body: bytes, kind: type[R]) -> R:
    """Return the message of proto3 JSON."""
    values = _parsed(body, "")
    config = values.pop("config", None)
    message = _filled(kind(), values, "")
    if config is not None:
        message.config.CopyFrom(_config(config, "config"))
    return message


def _config(values: object, field: str) -> AnalysisConfig:
    """Return a config with its images, whose base64 protobuf's own parser would read past every fault."""
    if not isinstance(values, dict):
        raise invalid("must be a JSON object", field=field)
    rest = cast("dict[str, Any]", values)
    images: object = rest.pop("images", None)
    config = _filled(AnalysisConfig(), rest, field)
    if images is None:
        return config
    if not isinstance(images, list):
        raise invalid("must be a list", field=f"{field}.images")
    for index, image in enumerate(cast("list[object]", images)):
        config.images.add(data=_image(image, f"{field}.images[{index}]"))
    return config


def _image(values: object, field: str) -> bytes:
    match values:
        case {"data": str(text)} if len(cast("dict[str, object]", values)) == 1:
            return _from_base64(text, f"{field}.data")
        case _:
            raise invalid('must be {"data": "<base64>"}', field=field)


def _from_base64(text: str, field: str) -> bytes:
    """Return the bytes; both alphabets are taken, with padding or without."""
    try:
        padded = text.rstrip("=")
        padded += "=" * (-len(padded) % 4)
        if "-" in padded or "_" in padded:
            padded = padded.replace("-", "+").replace("_", "/")
        return base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("is not valid base64", field=field) from None


def _parsed(text: bytes, field: str) -> dict[str, Any]:
    if sum(map(text.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise invalid("holds too many values", field=field or "body")
    try:
        values: object = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid("the body is not valid JSON" if not field else "is not valid JSON", field=field) from None
    if not isinstance(values, dict):
        raise invalid("the body must be a JSON object" if not field else "must be a JSON object", field=field)
    return cast("dict[str, Any]", values)


def _filled(message: _M, values: dict[str, Any], field: str) -> _M:
    try:
        return json_format.ParseDict(values, message)
    except _MALFORMED as error:
        raise invalid(str(error)[:_MAX_REASON_CHARACTERS], field=field) from None


def _checked(text: str, field: str) -> str:
    """Return a text that protobuf can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid("is not valid text", field=field) from None
    return text
