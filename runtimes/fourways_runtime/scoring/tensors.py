"""One tensor's data, JSON or binary, as a flat numpy array; and arrays as binary tensors.

Owns what the protocol's types look like on the wire. JSON is taken strictly: text is no number,
true is no number, null is a missing value, and a whole number that the type would round is refused:
only text tells 16777217 from 16777217.0. Good data is converted by C code in one go; Python looks
at single values only to say what is wrong with one. No knowledge of requests, no I/O.

Large data is converted in slices, because C code keeps the interpreter lock: other threads get
their turn between two slices. Of a record with several faults only the first is worded, so that a
bad body costs little more than a good one.

Binary: https://github.com/kserve/open-inference-protocol, extension "binary tensor data": elements
little-endian in row-major order; BOOL is a byte of 0 or 1; BYTES is a 4-byte length and the bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np

from fourways_runtime.scoring.cells import Faults, numbers, rounded, shown
from fourways_runtime.scoring.columns import Array

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_CODES = {code: np.dtype(f"<{code}") for code in "fdqQ"}
NOT_PLAIN = (struct.error, OverflowError)
SLICE = 16_384
"""Elements that are converted at a time."""

_EXACT = {"f": 2**24, "d": 2**53}
"""Up to here a float type holds every whole number."""

_BOUNDS = {"q": (-(2**63), 2**63 - 1), "Q": (0, 2**64 - 1)}
_NULL, _WHOLE, _REAL, _OTHER = range(4)
_KINDS: dict[type, int] = {type(None): _NULL, int: _WHOLE, float: _REAL}
_JSON_NAMES = {list: "a list", dict: "an object", bool: "a truth value", str: "text"}


class MalformedTensor(Exception):
    """The data is not a tensor of the shape and type it claims; ``str()`` is the reason."""


def from_json(
    kind: str, nullable: bool, data: Any, shape: tuple[int, ...], plain: bool
) -> tuple[Array, Faults]:
    """Convert JSON data, flat or nested as ``shape`` (N, …), to the contract's type ``kind``.

    ``plain`` promises that neither true nor false occurs in it. Returns the flat values, and by
    element what is wrong with the first bad one of each record.

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
    size = max(1, wanted // shape[0]) if shape and shape[0] else 1
    if wanted <= SLICE:
        values, faults = _converted(kind, nullable, data, plain, _Records(size, 0))
        return values, faults
    values = np.empty(wanted, object if kind == "string" else kind)
    found: dict[int, tuple[int, str]] = {}
    for start in range(0, wanted, SLICE):
        part = data[start : start + SLICE]
        values[start : start + SLICE], faults = _converted(
            kind, nullable, part, plain, _Records(size, start)
        )
        for at, reason in faults.items():
            found.setdefault((start + at) // size, (start + at, reason))
    return values, dict(found.values())


class _Records:
    """Which record each element of a slice belongs to."""

    __slots__ = ("_size", "_start")

    def __init__(self, size: int, start: int) -> None:
        self._size = size
        self._start = start

    def first(self, bad: Array) -> list[int]:
        """Return, of the elements where ``bad`` (M,) is true, the first of each record."""
        elements = np.flatnonzero(bad)
        _, firsts = np.unique((elements + self._start) // self._size, return_index=True)
        return [int(at) for at in elements[firsts]]


def _converted(
    kind: str, nullable: bool, data: list[Any], plain: bool, records: _Records
) -> tuple[Array, Faults]:
    if kind == "string":
        return _texts(data, records)
    if kind == "bool":
        return _truths(data, records)
    to = np.dtype(kind)
    code = "d" if to.kind == "f" else ("Q" if kind == "uint64" else "q")
    faults: Faults = {}
    try:
        if not plain and bool in set(map(type, data)):
            values, faults = _mixed(data, code, nullable, records)
        else:
            values = packed(code, data, (len(data),))
    except NOT_PLAIN:
        values, faults = _mixed(data, code, nullable, records)
    cast, more = fit(to, values, records)
    if to.kind == "f":
        more |= _inexact(to, data, values, records)
    return cast, more | faults


def _inexact(to: np.dtype[Any], data: list[Any], values: Array, records: _Records) -> Faults:
    """Say which whole numbers the float type ``to`` would round."""
    with np.errstate(invalid="ignore", over="ignore"):
        large = np.abs(values) >= _EXACT[to.char]
        if not large.any():
            return {}
        large &= _kinds(data) == _WHOLE
        if to.char == "f":  # beyond 2**53 it is the text that counts, not the float made of it
            large &= (values.astype(to) != values) | (np.abs(values) >= _EXACT["d"])
    for at in np.flatnonzero(large & (np.abs(values) >= _EXACT["d"])).tolist():
        large[at] = not _holds(to, data[at])
    return {at: f"{data[at]} would be rounded in {to}" for at in records.first(large)}


def _holds(to: np.dtype[Any], value: int) -> bool:
    cast = to.type(value)
    return not np.isfinite(cast) or int(cast) == value


def exact_limit(kind: np.dtype[Any]) -> int:
    """Return up to which whole number a float type holds them all."""
    return _EXACT[kind.char]


def packed(code: str, data: list[Any], shape: tuple[int, ...]) -> Array:
    """Convert numbers (and truth values) by a code of struct, which is faster than numpy at it.

    Raises:
        NOT_PLAIN: one of them is something else, or does not fit.

    """
    raw = struct.pack(f"<{len(data)}{code}", *data)
    return np.ndarray(shape, _CODES[code], raw)


def fit(to: np.dtype[Any], values: Array, records: _Records | None = None) -> tuple[Array, Faults]:
    """Cast numbers (M,) to the type ``to``; return them, and a fault for each it cannot hold.

    With ``records``, only for the first of each record.
    """
    if values.dtype == to:
        return values, {}
    # False for NaN as well: what is not plainly good is looked at closely.
    if to == np.float32 and values.dtype.kind == "f" and np.abs(values).max() <= _FLOAT32_MAX:
        return values.astype(np.float32), {}
    if records is None or to.kind != "f" or values.dtype.kind != "f":
        return numbers(to, values)
    cast, bad = rounded(values, to)
    return cast, {at: numbers(to, values[at : at + 1])[1][0] for at in records.first(bad)}


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


def _kinds(data: list[Any]) -> Array:
    """Return for each element whether it is null, a whole number, a float or something else."""
    found = map(_KINDS.get, map(type, data), repeat(_OTHER))
    return np.fromiter(found, np.uint8, len(data))


def _mixed(data: list[Any], code: str, nullable: bool, records: _Records) -> tuple[Array, Faults]:
    """Take what can be taken, and say what is wrong with the rest."""
    kinds = _kinds(data)
    absent, bad = kinds == _NULL, kinds == _OTHER
    if code != "d" or not nullable:
        bad |= absent
    faults = {
        at: "missing" if data[at] is None else _not(data[at], "a number")
        for at in records.first(bad)
    }
    kept = np.empty(len(data), object)
    kept[:] = data
    kept[absent] = math.nan if code == "d" else 0
    kept[bad] = 0
    if code == "d":
        values = np.array(kept.tolist(), np.float64)
        return values, faults
    reals = np.flatnonzero((kinds == _REAL) & ~bad)
    found = kept[reals].astype(np.float64)
    good = (np.trunc(found) == found) & (np.abs(found) <= _EXACT["d"])
    if code == "Q":
        good &= found >= 0
    unfit = np.zeros(len(data), bool)
    unfit[reals[~good]] = True
    kept[reals] = np.where(good, found, 0).astype(np.int64).astype(object)
    try:
        values = packed(code, kept.tolist(), (len(data),))
    except NOT_PLAIN:
        lowest, highest = _BOUNDS[code]
        for at in np.flatnonzero(kinds == _WHOLE).tolist():
            if not lowest <= data[at] <= highest:
                unfit[at], kept[at] = True, 0
        values = packed(code, kept.tolist(), (len(data),))
    return values, faults | {at: _unfit(data[at], code) for at in records.first(unfit)}


def _unfit(value: float | int, code: str) -> str:
    """Say why a number is no whole number of 64 bits."""
    lowest, highest = _BOUNDS[code]
    if value != value or value in (math.inf, -math.inf) or value != int(value):
        return f"{shown(value)} is not a whole number"
    if not lowest <= value <= highest:
        return f"{shown(value)} is outside {'uint64' if code == 'Q' else 'int64'}"
    return f"{value:.0f} may have been rounded: write whole numbers without a fraction"


def _texts(data: list[Any], records: _Records) -> tuple[Array, Faults]:
    faults: Faults = {}
    if set(map(type, data)) != {str}:
        # None stays: whether a missing text is accepted, the pipeline says.
        bad = _where(type(value) not in (str, type(None)) for value in data)
        faults = {at: _not(data[at], "text") for at in records.first(bad)}
        data = [value if type(value) is str else None for value in data]
    texts = np.empty(len(data), object)
    texts[:] = data
    return texts, faults


def _truths(data: list[Any], records: _Records) -> tuple[Array, Faults]:
    faults: Faults = {}
    if set(map(type, data)) != {bool}:
        bad = _where(type(value) is not bool for value in data)
        faults = {
            at: "missing" if data[at] is None else _not(data[at], "true or false")
            for at in records.first(bad)
        }
        data = [value is True for value in data]
    return np.array(data, np.bool_), faults


def _where(found: Iterable[bool]) -> Array:
    return np.fromiter(found, np.bool_)


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
