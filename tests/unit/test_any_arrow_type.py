"""A column of any Arrow type is refused when the table is cut, or read: there is no third outcome.

What a contract accepts of a type must decode, have a row hash and be compared as a watermark;
pyarrow has kernels for many types, but not for all.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fourways_api import Contract
from fourways_runtime.io.sources.arrow_types import plain_batch, plain_type
from fourways_runtime.io.sources.watermarks import (
    highest,
    kind_of_type,
    lowest_new,
    older,
    why_incomparable,
)
from fourways_runtime.scoring.cells import accepts
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.hashing import row_hashes

D: Any = decimal.Decimal
KINDS = ["bool", "int16", "uint64", "float16", "float64", "string", "bytes", "date"]
KINDS += ["timestamp_s", "timestamp_ns"]
MARKS = (5, -1, 2.5, 2**64 - 1, "2026-01-01", "2026-01-01T00:00:00.5", "2026-01-01T00:00:00Z", "z")
PLAIN: dict[str, list[Any]] = {
    "int8": [1, None, -128],
    "int64": [2**63 - 1, None, -(2**63)],
    "uint64": [1, None, 2**64 - 1],
    "float": [1.5, None, float("nan")],
    "double": [1e300, None, float("-inf")],
    "bool": [True, None, False],
    "string": ["a", None, ""],
    "large_string": ["a", None, ""],
    "string_view": ["a", None, ""],
    "binary": [b"a", None, b"\xff"],
    "large_binary": [b"a", None, b"\xff"],
    "binary_view": [b"a", None, b"\xff"],
    "date32": [dt.date(2026, 1, 1), None, dt.date(1, 1, 1)],
    "date64": [dt.date(2026, 1, 1), None, dt.date(9999, 12, 31)],
    "null": [None, None, None],
}


def columns() -> Iterator[Any]:
    """Yield columns of three rows, the second of which is null where the type has one."""
    some = [pa.array(values, getattr(pa, _made(name))()) for name, values in PLAIN.items()]
    halves: Any = np.array([1, np.nan, np.inf], np.float16)
    some += [pa.array(halves), pa.array([1, None, 2], pa.time32("s"))]
    some += [pa.array([1, None, 2], pa.duration("us")), pa.array([b"a", None, b"b"], pa.binary(1))]
    some += [pa.array([1, None, -1], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")]
    some += [pa.array([2**63 - 1, None, -(2**63)], pa.timestamp("us", "Asia/Tokyo"))]
    decimals: list[Any] = [pa.decimal32(5, 1), pa.decimal64(10, 1)]
    decimals += [pa.decimal128(20, 1), pa.decimal256(70, 1)]
    some += [pa.array([D("1.5"), None, D(2)], to) for to in decimals]
    yield from some
    for column in some:
        with suppress(pa.ArrowNotImplementedError):
            yield column.dictionary_encode()
        ends = pa.array([0, 1, 1, 3], pa.int32())
        yield pa.ListArray.from_arrays(ends, column, mask=pa.array([False, True, False]))
        yield pa.LargeListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int64()), column)
        yield pa.FixedSizeListArray.from_arrays(column, 1)
        inner = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), column)
        yield pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), inner)
    yield pa.array([{"a": 1}, None, {"a": 2}])
    yield pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64()))
    yield pa.array([[1], None, [2]], pa.list_view(pa.int64()))
    ids: Any = pa.array([b"0" * 16, None, b"1" * 16], pa.binary(16))
    yield pa.ExtensionArray.from_storage(pa.uuid(), ids)
    yield pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8()))
    yield pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(["[1]", None, "1"]))


def _made(name: str) -> str:
    return {"float": "float32", "double": "float64", "bool": "bool_"}.get(name, name)


COLUMNS = list(columns())


@cache
def _decoder(kind: str, shape: tuple[int, ...]) -> Decoder:
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "x", "type": kind, "shape": shape}],
            "outputs": [{"name": "y", "type": "float64"}],
        }
    )
    return Decoder(contract)


@pytest.mark.parametrize("column", COLUMNS, ids=[str(each.type)[:60] for each in COLUMNS])
def test_what_is_accepted_is_read(column: Any) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(["a", "b", "c"]), column], ["id", "x"])
    for kind in KINDS:
        for shape in ((), (1,), (-1,), (1, 1)):
            if not accepts(kind, shape, plain_type(column.type)):
                continue
            plain = plain_batch(batch)
            records, rejects = _decoder(kind, shape).decode(plain, np.arange(3))
            assert len(records) + len(rejects) == 3
            assert len(row_hashes(plain, ("id", "x"))) == 3


@pytest.mark.parametrize("column", COLUMNS, ids=[str(each.type)[:60] for each in COLUMNS])
def test_what_can_be_a_watermark_is_compared(column: Any) -> None:
    kind = kind_of_type(plain_type(column.type))
    if kind is None:
        return
    (plain,) = plain_batch(pa.RecordBatch.from_arrays([column], ["at"])).columns
    top = highest(plain)
    if top is not None:
        assert why_incomparable("at", kind, top) is None
        assert not older(plain, top).all()
    for mark in MARKS:
        if why_incomparable("at", kind, mark) is None:
            assert not older(plain, mark)[1], "a row without a value is new"


def test_what_cannot_be_compared_is_an_error_of_arrow() -> None:
    with pytest.raises(pa.ArrowInvalid, match="'z' cannot be compared with int64"):
        lowest_new("z", pa.int64())
