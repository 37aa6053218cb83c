"""Wire JSON: messages as proto3 JSON, the only form in which the gateway writes them.

Names are in camel case, enums by name, times as RFC 3339, durations as `"1.5s"`, 64-bit integers as strings, bytes in
base64. Fields that are 0, false or empty are written too, so that a reader need not know which are left out; only
messages and fields that are unset are not.
"""

import json
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message


def to_dict(message: Message) -> dict[str, Any]:
    """Return a message as the values of its JSON."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def to_line(values: dict[str, Any]) -> str:
    """Return values as JSON on one line."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def to_body(values: dict[str, Any]) -> bytes:
    """Return values as the bytes of a JSON body."""
    return to_line(values).encode()
