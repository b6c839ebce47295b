"""Rows in PostgreSQL's binary COPY format as Arrow columns, whole columns at a time.

Owns the format (PostgreSQL manual, COPY, "Binary Format", and the types' send functions). The
counterpart of :mod:`.copy_in`. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.columns import Array

HEADER_BYTES = 19
"""Signature, flags and the length of the header extension, of which none is defined yet."""

TRAILER = b"\xff\xff"

_buffer: Any = pa.py_buffer  # Its type stub does not accept arrays.
_EPOCH_DAYS = 10_957
"""Days from 1970 to 2000, PostgreSQL's epoch."""

_EPOCH_MICROSECONDS = _EPOCH_DAYS * 86_400_000_000
_FORMS: dict[str, tuple[str, Any]] = {
    "bool": ("?", pa.bool_()),
    "int2": (">i2", pa.int16()),
    "int4": (">i4", pa.int32()),
    "int8": (">i8", pa.int64()),
    "float4": (">f4", pa.float32()),
    "float8": (">f8", pa.float64()),
    "date": (">i4", pa.date32()),
    "timestamp": (">i8", pa.timestamp("us")),
    "timestamptz": (">i8", pa.timestamp("us", "UTC")),
}
FIXED = frozenset(_FORMS)
"""Types of fixed width."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the result: its name and type; every type that is not fixed is text."""

    name: str
    kind: str


class Unpacker:
    """Decodes rows of one query."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        fields: list[Any] = [("fields", ">i2")]
        for at, column in enumerate(self._columns):
            fields.append((f"length{at}", ">i4"))
            if column.kind in _FORMS:
                fields.append((f"value{at}", _FORMS[column.kind][0]))
        self._form: np.dtype[Any] | None = None
        if all(column.kind in _FORMS for column in self._columns):
            self._form = np.dtype(fields)

    def unpack(self, rows: Sequence[bytes | memoryview]) -> pa.RecordBatch:
        """Decode rows, each given as one protocol message."""
        data = np.frombuffer(b"".join(rows), np.uint8)
        arrays = self._alike(data, len(rows))
        if arrays is None:
            lengths = np.fromiter(map(len, rows), np.int64, len(rows))
            arrays = self._apart(data, np.cumsum(lengths) - lengths)
        return pa.RecordBatch.from_arrays(arrays, [column.name for column in self._columns])

    def _alike(self, data: Array, count: int) -> list[Any] | None:
        """Decode rows as one structured array; None if any row has a null."""
        form = self._form
        if form is None or len(data) != form.itemsize * count:
            return None
        table = data.view(form)
        for at, column in enumerate(self._columns):
            if (table[f"length{at}"] != np.dtype(_FORMS[column.kind][0]).itemsize).any():
                return None
        return [
            _array(column.kind, table[f"value{at}"], None)
            for at, column in enumerate(self._columns)
        ]

    def _apart(self, data: Array, starts: Array) -> list[Any]:
        arrays = []
        at = starts + 2
        for column in self._columns:
            lengths = data[at[:, None] + np.arange(4)].view(">i4")[:, 0].astype(np.int64)
            missing = lengths < 0
            lengths[missing] = 0
            at = at + 4
            if column.kind in _FORMS:
                arrays.append(_fixed(column, data, at, lengths, missing))
            else:
                arrays.append(_texts(data, at, lengths, missing))
            at = at + lengths
        return arrays


def _fixed(column: Column, data: Array, at: Array, lengths: Array, missing: Array) -> Any:
    form = np.dtype(_FORMS[column.kind][0])
    there = ~missing
    if (lengths[there] != form.itemsize).any():
        raise SourceError(f"column {column.name} is no longer {column.kind}")
    values = np.zeros(len(at), form)
    raw = data[at[there][:, None] + np.arange(form.itemsize)]
    values[there] = raw.view(form)[:, 0] if len(raw) else raw.reshape(-1).view(form)
    return _array(column.kind, values, missing if missing.any() else None)


def _array(kind: str, values: Array, missing: Array | None) -> Any:
    values = values.astype(values.dtype.newbyteorder("="))
    if kind == "date":
        values = _shifted(values, _EPOCH_DAYS)
    elif kind.startswith("timestamp"):
        values = _shifted(values, _EPOCH_MICROSECONDS)
    found = pa.array(values, mask=missing)
    return found.cast(_FORMS[kind][1]) if found.type != _FORMS[kind][1] else found


def _shifted(values: Array, by: int) -> Array:
    """Count moments from 1970; infinity, the end of the type's range, stays there."""
    limits = np.iinfo(values.dtype)
    least = values.dtype.type(limits.max - by)
    shifted: Array = np.minimum(values, least) + values.dtype.type(by)
    return np.where(values == limits.min, values, shifted)


def _texts(data: Array, at: Array, lengths: Array, missing: Array) -> Any:
    ends = np.zeros(len(at) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    if ends[-1] > np.iinfo(np.int32).max:
        raise SourceError("the texts of one batch of rows are larger than 2 GiB")
    values = data[np.repeat(at - ends[:-1], lengths) + np.arange(ends[-1])]
    validity = None
    if missing.any():
        validity = pa.py_buffer(np.packbits(~missing, bitorder="little").tobytes())
    buffers = [validity, _buffer(ends.astype(np.int32)), _buffer(values)]
    # As bytes: invalid UTF-8 then rejects its row instead of failing the run.
    return pa.Array.from_buffers(pa.binary(), len(at), buffers)
