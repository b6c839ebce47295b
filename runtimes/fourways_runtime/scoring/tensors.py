"""One tensor's data, JSON or binary, as a flat numpy array; and arrays as binary tensors.

Owns what the protocol's types look like on the wire. JSON is taken strictly: text is no number,
true is no number, null is a missing value. Good data is converted by C code in one go; Python looks
at single values only to say what is wrong with one. No knowledge of requests, no I/O.

Binary: https://github.com/kserve/open-inference-protocol, extension "binary tensor data": elements
little-endian in row-major order; BOOL is a byte of 0 or 1; BYTES is a 4-byte length and the bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from fourways_runtime.scoring.cells import Faults, numbers, shown
from fourways_runtime.scoring.columns import Array

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_CODES = {code: np.dtype(f"<{code}") for code in "fdqQ"}
NOT_PLAIN = (struct.error, OverflowError)
_JSON_NAMES = {list: "a list", dict: "an object", bool: "a truth value", str: "text"}


class MalformedTensor(Exception):
    """The data is not a tensor of the shape and type it claims; ``str()`` is the reason."""


def from_json(
    kind: str, nullable: bool, data: Any, shape: tuple[int, ...], plain: bool
) -> tuple[Array, Faults]:
    """Convert JSON data, flat or nested as ``shape`` (N, …), to the contract's type ``kind``.

    ``plain`` promises that neither true nor false occurs in it. Returns the flat values, and by
    element what is wrong with some of them.

    Raises:
        MalformedTensor: it is no list, or has another shape.

    """
    if type(data) is not list:
        raise MalformedTensor("must be a list")
    if data and type(data[0]) is list:
        data = _flattened(data, shape)
    wanted = math.prod(shape)
    if len(data) != wanted:
        raise MalformedTensor(f"holds {len(data)} values, the shape says {wanted}")
    if kind == "string":
        return _texts(data)
    if kind == "bool":
        return _truths(data)
    to = np.dtype(kind)
    code = "d" if to.kind == "f" else ("Q" if kind == "uint64" else "q")
    faults: Faults = {}
    try:
        if not plain and bool in set(map(type, data)):
            values, faults = _one_by_one(data, code, nullable)
        else:
            values = packed(code, data, (wanted,))
    except NOT_PLAIN:
        values, faults = _one_by_one(data, code, nullable)
    cast, more = fit(to, values)
    return cast, more | faults


def packed(code: str, data: list[Any], shape: tuple[int, ...]) -> Array:
    """Convert numbers (and truth values) by a code of struct, which is faster than numpy at it.

    Raises:
        NOT_PLAIN: one of them is something else, or does not fit.

    """
    raw = struct.pack(f"<{len(data)}{code}", *data)
    return np.ndarray(shape, _CODES[code], raw)


def fit(to: np.dtype[Any], values: Array) -> tuple[Array, Faults]:
    """Cast numbers (M,) to the type ``to``; return them, and a fault for each it cannot hold."""
    if values.dtype == to:
        return values, {}
    # False for NaN as well: what is not plainly good is looked at closely.
    if to == np.float32 and values.dtype.kind == "f" and np.abs(values).max() <= _FLOAT32_MAX:
        return values.astype(np.float32), {}
    return numbers(to, values)


def from_binary(kind: str, data: memoryview, wanted: int) -> tuple[Array, Faults]:
    """Read ``wanted`` elements of the contract's type ``kind``; the data is used in place.

    Raises:
        MalformedTensor: it holds more or fewer, or bytes that are no such elements.

    """
    if kind == "string":
        return _texts_from(data, wanted), {}
    to = np.dtype(kind).newbyteorder("<")
    if len(data) != wanted * to.itemsize:
        size = wanted * to.itemsize
        raise MalformedTensor(f"holds {len(data)} bytes, shape and datatype say {size}")
    if to.kind == "b":
        raw = np.frombuffer(data, np.uint8)
        if raw.size and raw.max() > 1:
            raise MalformedTensor("a BOOL is a byte of 0 or 1")
        return raw.view(np.bool_), {}
    values = np.frombuffer(data, to)
    # Behind a JSON header of any length elements lie anywhere; models want them aligned.
    return (values if values.flags.aligned else values.copy()), {}


def to_binary(kind: str, values: Array) -> bytes:
    """Write values as a binary tensor."""
    if kind != "string":
        return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    texts = [text.encode() for text in values.reshape(-1).tolist()]
    return b"".join(chain.from_iterable((len(t).to_bytes(4, "little"), t) for t in texts))


def _flattened(data: list[Any], shape: Sequence[int]) -> list[Any]:
    fault = "is neither flat nor nested as the shape says"
    if len(data) != shape[0]:
        raise MalformedTensor(fault)
    for size in shape[1:]:
        if not all(type(row) is list and len(row) == size for row in data):
            raise MalformedTensor(fault)
        data = list(chain.from_iterable(data))
    return data


def _one_by_one(data: list[Any], code: str, nullable: bool) -> tuple[Array, Faults]:
    """Take what can be taken, and say what is wrong with the rest."""
    faults: Faults = {}
    whole = code != "d"
    lowest, highest = (0, 2**64 - 1) if code == "Q" else (-(2**63), 2**63 - 1)
    values: list[float | int] = [0] * len(data)
    for at, value in enumerate(data):
        if value is None:
            if nullable and not whole:
                values[at] = math.nan
            else:
                faults[at] = "missing"
        elif type(value) is not int and type(value) is not float:
            faults[at] = _not(value, "a number")
        elif not whole:
            values[at] = value
        elif value != int(value):
            faults[at] = f"{shown(value)} is not a whole number"
        elif not lowest <= value <= highest:
            faults[at] = f"{shown(value)} is outside {'uint64' if code == 'Q' else 'int64'}"
        else:
            values[at] = int(value)
    return np.array(values, np.dtype(code)), faults


def _texts(data: list[Any]) -> tuple[Array, Faults]:
    faults: Faults = {}
    if set(map(type, data)) != {str}:
        # None stays: whether a missing text is accepted, the pipeline says.
        for at, value in enumerate(data):
            if value is not None and type(value) is not str:
                faults[at] = _not(value, "text")
        data = [None if at in faults else value for at, value in enumerate(data)]
    texts = np.empty(len(data), object)
    texts[:] = data
    return texts, faults


def _truths(data: list[Any]) -> tuple[Array, Faults]:
    faults: Faults = {}
    if set(map(type, data)) != {bool}:
        for at, value in enumerate(data):
            if value is None:
                faults[at] = "missing"
            elif type(value) is not bool:
                faults[at] = _not(value, "true or false")
        data = [value is True for value in data]
    return np.array(data, np.bool_), faults


def _not(value: Any, what: str) -> str:
    told = _JSON_NAMES.get(type(value)) if not isinstance(value, str) else shown(value)
    return f"{told or shown(value)} is not {what}"


def _texts_from(data: memoryview, wanted: int) -> Array:
    texts = np.empty(wanted, object)
    start = 0
    for at in range(wanted):
        begin = start + 4
        start = begin + int.from_bytes(data[start:begin], "little")
        if begin > len(data) or start > len(data):
            raise MalformedTensor(f"ends within element {at}")
        try:
            texts[at] = str(data[begin:start], "utf-8")
        except UnicodeDecodeError:
            raise MalformedTensor(f"element {at} is not UTF-8") from None
    if start != len(data):
        raise MalformedTensor(f"holds {len(data) - start} bytes behind its last element")
    return texts
