"""Schemas: the JSON schema of each message, from the contract itself, so that the document cannot differ from it."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

Schema = dict[str, Any]

_INT32: Schema = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_NUMBER: Schema = {"type": "number", "format": "float"}
_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {
        "type": "string",
        "contentEncoding": "base64",
        "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    },
    FieldDescriptor.TYPE_DOUBLE: _NUMBER,
    FieldDescriptor.TYPE_FLOAT: _NUMBER,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.TYPE_UINT64: _INT64,
}
_WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "description": "A detail of an error, such as `google.rpc.ErrorInfo` with its stable `reason`.",
    },
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["1.5s"]},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
}


def reference(name: str) -> Schema:
    """Return the reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas_of(roots: Iterable[Descriptor]) -> dict[str, Schema]:
    """Return the schemas of messages, and of all that stand in them, by their names."""
    found: dict[str, Schema] = {}
    waiting = list(roots)
    while waiting:
        message = waiting.pop()
        if message.name in found or message.full_name in _WELL_KNOWN:
            continue
        properties = {field.json_name: _field(field) for field in message.fields}
        found[message.name] = {"type": "object", "title": message.name, "properties": properties}
        for field in message.fields:
            if field.message_type is not None:
                waiting.append(field.message_type)
            if field.enum_type is not None:
                found[field.enum_type.name] = _enum(field.enum_type)
    return found


def _field(field: FieldDescriptor) -> Schema:
    one = _value(field)
    return {"type": "array", "items": one} if field.is_repeated else one


def _value(field: FieldDescriptor) -> Schema:
    if field.message_type is not None:
        return _WELL_KNOWN.get(field.message_type.full_name) or reference(field.message_type.name)
    if field.enum_type is not None:
        return reference(field.enum_type.name)
    return _SCALARS[field.type]


def _enum(enum: EnumDescriptor) -> Schema:
    return {"type": "string", "title": enum.name, "enum": [value.name for value in enum.values]}
