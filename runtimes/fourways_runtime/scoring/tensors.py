"""One tensor's data, JSON or binary, as a flat numpy array; and arrays as binary tensors.

Owns the wire format of the protocol's types. JSON is strict: text is not a number, true is not a
number, null is a missing value, and an integer that the type would round is rejected: only the text
distinguishes 16777217 from 16777217.0. Valid data is converted by C code in one call; Python looks
at single values only to describe what is wrong with one. No knowledge of requests, no I/O.

Large data is converted in slices, because C code keeps the interpreter lock: other threads can run
between two slices. Only the first fault of a record is described, so that an invalid body costs
little more than a valid one.

Binary: https://github.com/kserve/open-inference-protocol, extension "binary tensor data": elements
little-endian in row-major order; BOOL is a byte of 0 or 1; BYTES is a 4-byte length and the bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.exact_json import BEYOND
from fourways_runtime.scoring.literals import EXACT
from fourways_runtime.scoring.literals import from_json as judged
from fourways_runtime.scoring.times import is_time
from fourways_runtime.scoring.values import Faults, numbers, numpy_type, rounded

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_CODES = {code: np.dtype(f"<{code}") for code in "fdqQ"}
NOT_PLAIN = (struct.error, OverflowError)
SLICE = 16_384
"""Number of elements that are converted at a time."""


class MalformedTensor(Exception):
    """The data does not match its declared shape and type; ``str()`` is the reason."""


def from_json(
    kind: str,
    nullable: bool,
    data: Any,
    shape: tuple[int, ...],
    plain: bool,
    *,
    exact: bool = True,
) -> tuple[Array, Faults]:
    """Convert JSON data, flat or nested as ``shape`` (N, …), to the contract's type ``kind``.

    ``plain`` guarantees that it contains neither true nor false. Not ``exact``: the parser gave
    integers of more than 64 bits as floats. Returns the flat values, and by element the first fault
    of each record.

    Raises:
        MalformedTensor: it is not a list, or has another shape.
        MaybeRounded: it is not ``exact``, and has a float that may stand for such an integer.

    """
    if type(data) is not list:
        raise MalformedTensor("must be a list")
    if data and type(data[0]) is list:
        data = _flattened(data, shape)
    wanted = math.prod(shape)
    if len(data) != wanted:
        raise MalformedTensor(f"holds {len(data)} values, the shape says {wanted}")
    if not wanted:
        return np.empty(0, numpy_type(kind)), {}
    size = max(1, wanted // shape[0]) if shape and shape[0] else 1
    if wanted <= SLICE:
        return _converted(kind, nullable, data, plain, _Records(size, 0), exact)
    values = np.empty(wanted, numpy_type(kind))
    found: dict[int, tuple[int, str]] = {}
    for start in range(0, wanted, SLICE):
        part = data[start : start + SLICE]
        values[start : start + SLICE], faults = _converted(
            kind, nullable, part, plain, _Records(size, start), exact
        )
        for at, reason in faults.items():
            found.setdefault((start + at) // size, (start + at, reason))
    return values, dict(found.values())


class MaybeRounded(Exception):
    """A float may stand for an integer of more digits; only the text tells them apart."""


class _Records:
    """Maps each element of a slice to its record."""

    __slots__ = ("_size", "_start")

    def __init__(self, size: int, start: int) -> None:
        self._size = size
        self._start = start

    def first(self, bad: Array) -> list[int]:
        """Return the first element of each record among those where ``bad`` (M,) is true."""
        elements = np.flatnonzero(bad)
        _, firsts = np.unique((elements + self._start) // self._size, return_index=True)
        return [int(at) for at in elements[firsts]]

    def of(self, at: int) -> int:
        """Return the record of an element."""
        return (at + self._start) // self._size


def _converted(
    kind: str, nullable: bool, data: list[Any], plain: bool, records: _Records, exact: bool
) -> tuple[Array, Faults]:
    if kind == "string":
        return _texts(data, records)
    if kind == "bool":
        return _truths(data, records)
    if kind == "bytes" or is_time(kind):
        return _one_by_one(data, kind, nullable, records, exact)
    to = np.dtype(kind)
    code = "d" if to.kind == "f" else ("Q" if kind == "uint64" else "q")
    try:
        if not plain and bool in set(map(type, data)):
            return _one_by_one(data, kind, nullable, records, exact)
        values = packed(code, data, (len(data),))
    except NOT_PLAIN:
        return _one_by_one(data, kind, nullable, records, exact)
    if code == "d" and not (np.abs(values) < EXACT[kind]).all():
        if not exact and np.abs(values).max() >= BEYOND:
            raise MaybeRounded
        if int in set(map(type, data)):
            # Integers that a float may have rounded.
            return _one_by_one(data, kind, nullable, records)
    return fit(to, values, records)


def packed(code: str, data: list[Any], shape: tuple[int, ...]) -> Array:
    """Convert numbers (and booleans) with a struct format code, which is faster than numpy.

    Raises:
        NOT_PLAIN: one of them has another type, or does not fit.

    """
    raw = struct.pack(f"<{len(data)}{code}", *data)
    return np.ndarray(shape, _CODES[code], raw)


def fit(to: np.dtype[Any], values: Array, records: _Records | None = None) -> tuple[Array, Faults]:
    """Cast numbers (M,) to the type ``to``; return them, and a fault for each it cannot hold.

    With ``records``, returns only the first fault of each record.
    """
    if values.dtype == to:
        return values, {}
    # False for NaN as well, so that it takes the slow path with the detailed checks.
    if to == np.float32 and values.dtype.kind == "f" and np.abs(values).max() <= _FLOAT32_MAX:
        return values.astype(np.float32), {}
    if records is None or to.kind != "f" or values.dtype.kind != "f":
        return numbers(to, values)
    cast, bad = rounded(values, to)
    return cast, {at: numbers(to, values[at : at + 1])[1][0] for at in records.first(bad)}


def from_binary(kind: str, data: memoryview, wanted: int) -> tuple[Array, Faults]:
    """Read ``wanted`` elements of the contract's type ``kind``; the data is used in place.

    Raises:
        MalformedTensor: it holds more or fewer, or bytes that are not valid elements.

    """
    if kind in ("string", "bytes"):
        return _texts_from(data, wanted, kind), {}
    if is_time(kind):
        texts = _texts_from(data, wanted, "string").tolist()
        return _one_by_one(texts, kind, False, _Records(1, 0))
    to = np.dtype(kind).newbyteorder("<")
    if not wanted and not len(data):
        return np.empty(0, to), {}
    if len(data) != wanted * to.itemsize:
        size = wanted * to.itemsize
        raise MalformedTensor(f"holds {len(data)} bytes, shape and datatype say {size}")
    if to.kind == "b":
        raw = np.frombuffer(data, np.uint8)
        if raw.size and raw.max() > 1:
            raise MalformedTensor("a BOOL is a byte of 0 or 1")
        return raw.view(np.bool_), {}
    values = np.frombuffer(data, to)
    # After a JSON header of arbitrary length, elements may be unaligned; models need them aligned.
    return (values if values.flags.aligned else values.copy()), {}


def to_binary(kind: str, values: Array) -> bytes:
    """Encode values as a binary tensor."""
    if kind != "string":
        return np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<")).tobytes()
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


def _one_by_one(
    data: list[Any], kind: str, nullable: bool, records: _Records, exact: bool = True
) -> tuple[Array, Faults]:
    """Convert the valid elements, and describe the first invalid element of each record."""
    to = numpy_type(kind)
    values: list[Any] = [b"" if kind == "bytes" else 0] * len(data)
    faults: Faults = {}
    bad = -1
    for at, value in enumerate(data):
        if records.of(at) == bad:
            continue
        if not exact and type(value) is float and abs(value) >= BEYOND:
            raise MaybeRounded
        if value is not None:
            found, fault = judged(kind, value)
        elif nullable and to.kind == "f":
            found, fault = math.nan, None
        else:
            found, fault = None, "missing"
        if fault is None:
            values[at] = found
        else:
            faults[at] = fault
            bad = records.of(at)
    if to.kind != "f":
        found = np.empty(len(values), to)
        found[:] = values
        return found, faults
    cast, more = fit(to, np.array(values, np.float64), records)
    return cast, more | faults


def _texts(data: list[Any], records: _Records) -> tuple[Array, Faults]:
    faults: Faults = {}
    if set(map(type, data)) != {str}:
        # None is kept: the pipeline decides whether a missing text is accepted.
        bad = _where(type(value) not in (str, type(None)) for value in data)
        faults = {at: str(judged("string", data[at])[1]) for at in records.first(bad)}
        data = [value if type(value) is str else None for value in data]
    texts = np.empty(len(data), object)
    texts[:] = data
    return texts, faults


def _truths(data: list[Any], records: _Records) -> tuple[Array, Faults]:
    faults: Faults = {}
    if set(map(type, data)) != {bool}:
        bad = _where(type(value) is not bool for value in data)
        faults = {
            at: "missing" if data[at] is None else str(judged("bool", data[at])[1])
            for at in records.first(bad)
        }
        data = [value is True for value in data]
    return np.array(data, np.bool_), faults


def _where(found: Iterable[bool]) -> Array:
    return np.fromiter(found, np.bool_)


def _texts_from(data: memoryview, wanted: int, kind: str) -> Array:
    texts = np.empty(wanted, object)
    start = 0
    for at in range(wanted):
        begin = start + 4
        start = begin + int.from_bytes(data[start:begin], "little")
        if begin > len(data) or start > len(data):
            raise MalformedTensor(f"ends within element {at}")
        if kind == "bytes":
            texts[at] = bytes(data[begin:start])
            continue
        try:
            texts[at] = str(data[begin:start], "utf-8")
        except UnicodeDecodeError:
            raise MalformedTensor(f"element {at} is not UTF-8") from None
    if start != len(data):
        raise MalformedTensor(f"holds {len(data) - start} bytes behind its last element")
    return texts
