"""The parts of the Open Inference Protocol V2 (REST) that all servers share.

Owns the protocol's names and the wording of refusals. Servers that answer from the store and
servers that answer from a model read different requests; what they have in common is here. No I/O,
no numpy.
"""

from __future__ import annotations

import math
from typing import Any, Final

from fourways_api import EntityKey
from fourways_http import HttpError

DATATYPES: Final = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
    "bytes": "BYTES",
    "date": "BYTES",
    "timestamp_s": "BYTES",
    "timestamp_ms": "BYTES",
    "timestamp_us": "BYTES",
    "timestamp_ns": "BYTES",
}
"""The protocol's names for the contract's types. Times are texts, or INT64."""

KEY_ALIAS = "entity_key"
"""Alternative name for the entity key's input, besides the contract's own."""

FOUND = "found"
"""The output that says which keys have a prediction, where ``allow_missing`` was asked."""

MAX_KEY_CHARACTERS = 1024
MAX_OUTPUTS = 256
_FIELDS = frozenset({"id", "inputs", "model_name", "model_version", "outputs", "parameters"})
"""Fields of a request. The path names the model; some clients repeat it in the body."""

_MAX_ID = 256
_INT64 = range(-(2**63), 2**63)


def refuse(field: str, reason: str) -> HttpError:
    """Return the 400 that names the invalid field and the reason."""
    return HttpError(400, f"{field}: {reason}", field=field, reason=reason)


def read_envelope(body: Any, form: str) -> tuple[dict[str, Any], str | None]:
    """Check a request's outermost fields; return the request and its id.

    ``form`` is an example of a valid request, which the errors show. Raises HttpError 400.
    """
    if not isinstance(body, dict):
        raise refuse("body", f"must be a JSON object: {form}")
    if not body.keys() <= _FIELDS:
        shown = "" if "inputs" in body else f"; send {form}"
        unknown = sorted(body.keys() - _FIELDS)[0][:63]
        raise refuse(unknown, f"is not a field of the protocol{shown}")
    if "inputs" not in body:
        raise refuse("inputs", f"must be a list of tensors: {form}")
    identity = body.get("id")
    if identity is not None and (not isinstance(identity, str) or len(identity) > _MAX_ID):
        raise refuse("id", f"must be a string of at most {_MAX_ID} characters")
    return body, identity


def rows_of(output: dict[str, Any]) -> list[Any]:
    """Return the rows of an output tensor in JSON, nested according to its shape."""
    values: list[Any] = output["data"]
    if values and isinstance(values[0], list):
        return values
    for depth in range(len(output["shape"]) - 1, 0, -1):
        size, count = output["shape"][depth], math.prod(output["shape"][:depth])
        values = [values[at * size : (at + 1) * size] for at in range(count)]
    return values


def read_key(text: str, key: EntityKey) -> str | int:
    """Read a key from a path. Raises HttpError 400 if it is not of the contract's type."""
    if key.type == "string":
        value: str | int = text
    else:
        digits = text[1:] if text[:1] == "-" else text
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            raise refuse("key", f"must be a whole number: {key.name} is int64")
        value = int(text)
    fault = key_fault(value, key)
    if fault:
        raise refuse("key", fault)
    return value


def key_fault(value: Any, key: EntityKey) -> str | None:
    """Return why a value cannot be an entity key, or None if it can."""
    if key.type == "int64":
        if type(value) is not int:
            return f"must be a whole number: {key.name} is int64"
        return None if value in _INT64 else "does not fit 64 bits"
    if type(value) is not str:
        return f"must be a string: {key.name} is a string"
    if not value or len(value) > MAX_KEY_CHARACTERS:
        return f"must have 1 to {MAX_KEY_CHARACTERS} characters"
    return "must not hold a NUL character" if "\0" in value else None
