"""Makes a protobuf class from a table of fields, without the modules that describe protobuf itself.

``google.protobuf.descriptor_pb2`` and ``descriptor_pool`` load protobuf's slow implementation in
Python as well: 5 MB, and a tenth of a model server's start. The pool of the fast implementation
takes a serialized description just as well, and a description is a few fields.

Source of the numbers: https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto
"""

from __future__ import annotations

from typing import Any

from google.protobuf import message

from fourways_runtime import sigterm

Schema = dict[str, dict[str, tuple[int, str]]]
"""``{message: {field: (number, type)}}``; a capital type is a message, ``*`` is repeated."""

_OPTIONAL, _REPEATED = 1, 3
_TYPES = {"int64": 3, "bytes": 12}
_MESSAGE = 11


def message_class(package: str, schema: Schema) -> type[Any]:
    """Return the protobuf class of the message ``Model`` of a schema; ``package`` is its own."""
    file = _file(package, schema)
    try:
        from google._upb._message import DescriptorPool, MessageMeta
    except ImportError:  # a version has moved it, or was built without it
        return _by_the_public_way(package, file)
    with sigterm.deferred():
        pool = DescriptorPool()
        pool.AddSerializedFile(file)
        described = pool.FindMessageTypeByName(f"{package}.Model")
        names = {"DESCRIPTOR": described, "__module__": __name__}
        found: type[Any] = MessageMeta("Model", (message.Message,), names)
    return found


def _by_the_public_way(package: str, file: bytes) -> type[Any]:
    from google.protobuf import descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Model"))


def _file(package: str, schema: Schema) -> bytes:
    """Return a serialized ``FileDescriptorProto``."""
    messages = b"".join(_text(4, _message(package, name, schema)) for name in schema)
    file = f"{package.replace('.', '/')}.proto"
    return _text(1, file) + _text(2, package) + messages + _text(12, "proto2")


def _message(package: str, name: str, schema: Schema) -> bytes:
    fields = b"".join(
        _text(2, _field(package, key, number, kind, schema))
        for key, (number, kind) in schema[name].items()
    )
    return _text(1, name) + fields


def _field(package: str, name: str, number: int, kind: str, schema: Schema) -> bytes:
    label = _REPEATED if kind.startswith("*") else _OPTIONAL
    kind = kind.lstrip("*")
    described = _text(1, name) + _number(3, number) + _number(4, label)
    if kind in schema:
        return described + _number(5, _MESSAGE) + _text(6, f".{package}.{kind}")
    return described + _number(5, _TYPES[kind])


def _text(number: int, value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
