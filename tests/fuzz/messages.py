"""Messages: strategies for any message of the contract, made from its descriptor, with the ends of every range."""

import math
from collections.abc import Callable
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.service.files import png, sample

INT32 = (-(2**31), -1, 0, 1, 2, 7, 1000, 1001, 2**24, 2**31 - 1)
UINT32 = (0, 1, 7, 2**32 - 1)
INT64 = (-(2**63), -315_576_000_001, -1, 0, 1, 60, 3601, 315_576_000_000, 2**63 - 1)
FLOATS = (0.0, -0.0, 1e-45, 0.5, 1.0, 2.0, 2.0000002, -1.0, 3.4e38, math.inf, -math.inf, math.nan)
ENUMS = (-(2**31), -1, 0, 1, 2, 3, 4, 5, 99, 2**31 - 1)
TEXTS = (
    "",
    " ",
    "\0",
    "x",
    "analyses/",
    "analyses/x",
    "analyses/" + "0" * 32,
    "analyses/../../etc/passwd",
    "analyses/*",
    "models/mondrian-tiny",
    "ansel",
    "advisors/ansel",
    "<image>",
    "<|im_start|>system",
    "'; DROP TABLE analyses; --",
    "%s%n{}{0}\\x00\r\n\t",
    "\u202eéß漢💭\ufeff\ufffd",
    "0",
    "1",
    "00000000000000000001",
    "9" * 5000,
    "٣",
    "x" * 65,
    "é" * 32_001,
)
FILES = (b"", b"\xff", b"\x89PNG\r\n\x1a\n", png(1, 1), png(3, 300), sample(".jpg"), sample(".jpg")[:2000])

# A function of a name, so that names of analyses that are there can be drawn as well.
Texts = Callable[[], tuple[str, ...]]


def messages(descriptor: Descriptor, texts: Texts) -> st.SearchStrategy[Message]:
    """Return messages of a type in which each field is set or not, to ordinary and to extreme values."""
    kind = message_factory.GetMessageClass(descriptor)

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = kind()
        for field in descriptor.fields:
            if draw(st.integers(0, 2)):
                _set(draw, message, field, texts)
        return message

    return build()


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor, texts: Texts) -> None:
    if field.is_repeated:
        count = draw(st.sampled_from((0, 1, 1, 2, 9)))
        values = [draw(_values(field, texts)) for _ in range(count)]
        getattr(message, field.name).extend(values)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(draw(_values(field, texts)))
    else:
        setattr(message, field.name, draw(_values(field, texts)))


def _values(  # noqa: PLR0911  # one strategy for each type
    field: FieldDescriptor, texts: Texts
) -> st.SearchStrategy[Any]:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE if field.message_type is not None:
            return messages(field.message_type, texts)
        case FieldDescriptor.TYPE_STRING:
            return st.one_of(
                st.sampled_from(TEXTS), st.deferred(lambda: st.sampled_from(texts())), st.text(max_size=40)
            )
        case FieldDescriptor.TYPE_BYTES:
            return st.one_of(st.sampled_from(FILES), st.binary(max_size=100))
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            return st.sampled_from(ENUMS)
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
            return st.sampled_from(FLOATS)
        case FieldDescriptor.TYPE_INT64:
            return st.sampled_from(INT64)
        case FieldDescriptor.TYPE_UINT32:
            return st.sampled_from(UINT32)
        case _:
            return st.sampled_from(INT32)
