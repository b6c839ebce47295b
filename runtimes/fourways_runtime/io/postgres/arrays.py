"""Arrays in PostgreSQL's binary format, as statement parameters: columns for ``unnest``.

Owns the array header; numpy packs the numbers in the formats of :mod:`.copy_in`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fourways_runtime.scoring.columns import Array, Keys

from ..table_columns import TableColumn
from .copy_in import TYPES, put_scalars

BYTEA = 17
TEXT = 25

_HEADER = struct.Struct(">iiiii")
_EMPTY = struct.Struct(">iii")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)
_FORMS: dict[str, np.dtype[Any]] = {
    kind: np.dtype([("length", ">i4"), ("value", found.form)])
    for kind, found in TYPES.items()
    if found.form is not None
}


def numbers(kind: str, values: Array | Sequence[int]) -> bytes:
    """Pack numbers (N, …) of a contract type, flattened."""
    given = np.asarray(values).reshape(-1)
    packed = np.zeros(len(given), _FORMS[kind])
    packed["length"] = packed.dtype["value"].itemsize
    put_scalars(packed["value"], kind, given)
    return _header(len(given), TYPES[kind].oid) + packed.tobytes()


def texts(values: Sequence[str]) -> bytes:
    """Pack texts."""
    raws = "".join(values).encode()
    length, *others = set(map(len, values)) or (0,)
    if length and not others and len(raws) == length * len(values):
        # Texts of equal length, as many keys have, are packed like numbers.
        packed = np.empty(len(values), [("length", ">i4"), ("value", f"V{length}")])
        packed["length"], packed["value"] = length, np.frombuffer(raws, f"V{length}")
        return _header(len(values), TEXT) + packed.tobytes()
    parts = [_header(len(values), TEXT)]
    pack = _LENGTH.pack
    for value in values:
        raw = value.encode()
        parts += (pack(len(raw)), raw)
    return b"".join(parts)


def blobs(values: Iterable[bytes | None]) -> bytes:
    """Pack byte strings, some of which may be null."""
    given = list(values)
    parts = [_header(len(given), BYTEA, nulls=1)]
    for value in given:
        parts += (_NULL,) if value is None else (_LENGTH.pack(len(value)), value)
    return b"".join(parts)


def cells(column: TableColumn, values: Keys) -> bytes:
    """Pack a column's values (N, *shape), flattened."""
    if column.kind == "string":
        return texts(np.asarray(values).reshape(-1).tolist())
    return numbers(column.kind, np.asarray(values))


def _header(count: int, oid: int, nulls: int = 0) -> bytes:
    if not count:
        return _EMPTY.pack(0, nulls, oid)
    return _HEADER.pack(1, nulls, oid, count, 1)
