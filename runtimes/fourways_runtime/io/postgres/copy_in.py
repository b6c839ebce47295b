"""Rows in PostgreSQL's binary COPY format, packed by numpy.

Owns the format (PostgreSQL manual, COPY, "Binary Format", and the types' send functions). Columns
of fixed width are packed as one structured array; texts are scattered between them by index. There
is no Python loop over rows, except for arrays of text.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fourways_runtime.scoring.columns import Array, Keys, Texts, text_ends

from ..table_columns import TableColumn

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
"""Signature, flags and the length of the header extension."""

TRAILER = struct.pack(">h", -1)


@dataclass(frozen=True, slots=True)
class PgType:
    """A PostgreSQL type: its SQL name, its OID and its binary format (None: variable width)."""

    sql: str
    oid: int
    form: Any


# Five base-10000 digits hold any uint64; PostgreSQL strips leading zeros when it receives them.
_NUMERIC = [
    ("ndigits", ">i2"),
    ("weight", ">i2"),
    ("sign", ">i2"),
    ("dscale", ">i2"),
    ("digits", ">i2", (5,)),
]
_SMALLINT = PgType("smallint", 21, ">i2")
_BIGINT = PgType("bigint", 20, ">i8")
_INTEGER = PgType("integer", 23, ">i4")
TYPES = {
    "bool": PgType("boolean", 16, "?"),
    "int8": _SMALLINT,
    "uint8": _SMALLINT,
    "int16": _SMALLINT,
    "uint16": _INTEGER,
    "int32": _INTEGER,
    "uint32": _BIGINT,
    "int64": _BIGINT,
    "uint64": PgType("numeric", 1700, _NUMERIC),
    "float16": PgType("real", 700, ">f4"),
    "float32": PgType("real", 700, ">f4"),
    "float64": PgType("double precision", 701, ">f8"),
    "string": PgType("text", 25, None),
}


def sql_type(column: TableColumn) -> str:
    """Return a column's SQL type. An array's dimensions are declared only in its contract."""
    return TYPES[column.kind].sql + "[]" * len(column.shape)


class Packer:
    """Packs rows of one table. Thread-safe."""

    def __init__(self, columns: Sequence[TableColumn]) -> None:
        self._columns = tuple(columns)

    def pack(self, values: Sequence[Keys]) -> bytes:
        """Pack columns of N values each, in the table's order: numbers (N, *shape), or text."""
        cells = list(map(_cells, self._columns, values))
        segments = [np.zeros(len(values[0]), fields) for fields in _fields(cells)]
        segments[0]["fields"] = len(self._columns)
        texts: list[Any] = []
        for at, (column, (form, found)) in enumerate(zip(self._columns, cells, strict=True)):
            segment = segments[len(texts)]
            if form is None:
                segment[f"length{at}"] = pc.binary_length(found)
                texts.append(found)
                continue
            segment[f"length{at}"] = segment.dtype[f"value{at}"].itemsize
            if column.kind == "string":
                segment[f"value{at}"] = found
            else:
                _put(segment[f"value{at}"], column, found)
        return segments[0].tobytes() if not texts else _joined(segments, texts)


def _cells(column: TableColumn, values: Keys) -> tuple[Any, Any]:
    """Return values and their binary format; None means variable width, in an Arrow array.

    Texts of equal length, as many keys have, get a fixed format like numbers. Rows without
    variable-width values need no joining.
    """
    form = _form(column)
    if form is not None:
        return form, np.asarray(values)
    even = None if column.shape else _even_text(values)
    return (None, _text(column, values)) if even is None else (even.dtype, even)


def _fields(cells: Sequence[tuple[Any, Any]]) -> list[np.dtype[Any]]:
    """Return the segments of a row, which are separated by the texts of variable width.

    Each segment except the last ends with the length of the text that follows it.
    """
    segments: list[list[Any]] = [[("fields", ">i2")]]
    for at, (form, _) in enumerate(cells):
        segments[-1].append((f"length{at}", ">i4"))
        if form is None:
            segments.append([])
        else:
            segments[-1].append((f"value{at}", form))
    return list(map(np.dtype, segments))


def _even_text(values: Keys) -> Array | None:
    """Return texts (N,) of equal length as fixed-width bytes; None if the lengths differ."""
    if not isinstance(values, Texts) or not len(values):
        return None
    ends = text_ends(values.arrow)
    length = int(ends[1] - ends[0])
    if not length or (np.diff(ends) != length).any():
        return None
    return np.frombuffer(values.arrow.buffers()[2], f"V{length}", len(values), int(ends[0]))


def _text(column: TableColumn, values: Keys) -> Any:
    """Return values of variable width as an Arrow array of bytes."""
    if column.shape:
        return pa.array([_text_array(row) for row in np.asarray(values)], pa.large_binary())
    return pa.array(values, pa.string()).cast(pa.large_binary())


def _joined(segments: list[Array], texts: list[Any]) -> bytes:
    """Concatenate the segments and texts of all rows alternately."""
    parts: list[Any] = []
    for number, segment in enumerate(segments):
        width = segment.dtype.itemsize
        if width:
            ends: Any = np.arange(0, (len(segment) + 1) * width, width)
            raw: Any = segment
            buffers: list[Any] = [None, pa.py_buffer(ends), pa.py_buffer(raw)]
            parts.append(pa.Array.from_buffers(pa.large_binary(), len(segment), buffers))
        parts += texts[number : number + 1]
    none: Any = pa.scalar(b"", pa.large_binary())
    rows: Any = pc.binary_join_element_wise(*parts, none)
    _, offsets, data = rows.buffers()
    ends = np.frombuffer(offsets, np.int64)[rows.offset : rows.offset + len(rows) + 1]
    return bytes(data[int(ends[0]) : int(ends[-1])])


def _form(column: TableColumn) -> Any:
    element = TYPES[column.kind].form
    if element is None or not column.shape:
        return element
    return [
        ("ndim", ">i4"),
        ("flags", ">i4"),
        ("oid", ">i4"),
        ("dimensions", [("size", ">i4"), ("lower", ">i4")], (len(column.shape),)),
        ("elements", [("length", ">i4"), ("value", element)], (math.prod(column.shape),)),
    ]


def _put(into: Array, column: TableColumn, values: Array) -> None:
    if not column.shape:
        put_scalars(into, column.kind, values)
        return
    into["ndim"] = len(column.shape)
    into["oid"] = TYPES[column.kind].oid
    into["dimensions"]["size"] = column.shape
    into["dimensions"]["lower"] = 1
    elements = into["elements"]
    elements["length"] = elements["value"].dtype.itemsize
    put_scalars(elements["value"], column.kind, values.reshape(len(values), -1))


def put_scalars(into: Array, kind: str, values: Array) -> None:
    """Write values (M,) of a contract type in the type's binary format."""
    if kind != "uint64":
        into[...] = values
        return
    into["ndigits"] = 5
    into["weight"] = 4
    rest = values.astype(np.uint64)
    for digit in range(4, -1, -1):
        into["digits"][..., digit] = rest % np.uint64(10_000)
        rest = rest // np.uint64(10_000)


def _text_array(row: Array) -> bytes:
    parts = [struct.pack(">iii", row.ndim, 0, TYPES["string"].oid)]
    parts += [struct.pack(">ii", size, 1) for size in row.shape]
    for text in row.reshape(-1):
        raw = text.encode()
        parts += [struct.pack(">i", len(raw)), raw]
    return b"".join(parts)
