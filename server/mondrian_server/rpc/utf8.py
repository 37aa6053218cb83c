"""Invalid UTF-8: finds the field of a message whose text the protobuf runtime refuses to parse."""

from collections.abc import Iterable
from functools import cache
from typing import cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message


def find_invalid_text(descriptor: Descriptor, data: bytes) -> str | None:
    """Return the path of the first text field that is not UTF-8; None if that is not what is wrong.

    The message is parsed by a twin of its type in which strings are bytes: on the wire the two are the same.
    """
    twin = message_factory.GetMessageClass(_twins(descriptor.file).FindMessageTypeByName(descriptor.full_name))()
    try:
        twin.ParseFromString(data)
    except DecodeError:
        return None
    return _first_invalid(twin, descriptor)


@cache
def _twins(file: FileDescriptor) -> descriptor_pool.DescriptorPool:
    """Return a pool with the file and all that it imports, every string a bytes field."""
    pool = descriptor_pool.DescriptorPool()
    _add(pool, file, set())
    return pool


def _add(pool: descriptor_pool.DescriptorPool, file: FileDescriptor, seen: set[str]) -> None:
    if file.name in seen:
        return
    seen.add(file.name)
    for dependency in file.dependencies:
        _add(pool, dependency, seen)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    for message in proto.message_type:
        _strings_to_bytes(message)
    proto.ClearField("options")
    pool.Add(proto)


def _strings_to_bytes(message: descriptor_pb2.DescriptorProto) -> None:
    if message.options.map_entry:
        return  # A map's keys may not be bytes; no message of ours has one that a caller fills.
    for field in message.field:
        if field.type == descriptor_pb2.FieldDescriptorProto.TYPE_STRING:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
            field.ClearField("default_value")
    for nested in message.nested_type:
        _strings_to_bytes(nested)


def _first_invalid(twin: Message, original: Descriptor) -> str | None:
    for field, value in twin.ListFields():
        wanted = original.fields_by_name[field.name]
        repeated = field.is_repeated
        items: list[object] = list(cast("Iterable[object]", value)) if repeated else [value]
        for index, item in enumerate(items):
            inner = _invalid_in(item, wanted)
            if inner is not None:
                return f"{field.name}[{index}]{inner}" if repeated else f"{field.name}{inner}"
    return None


def _invalid_in(item: object, wanted: FieldDescriptor) -> str | None:
    """Return what to add to the field's own path: nothing for the field itself, `.child` for one below it."""
    if isinstance(item, Message) and wanted.message_type is not None:
        inner = _first_invalid(item, wanted.message_type)
        return None if inner is None else f".{inner}"
    if isinstance(item, bytes) and wanted.type == FieldDescriptor.TYPE_STRING and not _is_utf8(item):
        return ""
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
