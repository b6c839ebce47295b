"""What the tables hold: columns of cells, each with its right outcome.

A cell's outcome is the value that a model must get, or the words of its refusal. Every writer of a
form that a case names writes the same cells, and the outcome is the same in every form; where a
form cannot hold a cell or says something else with it, the case is not written in that form.
"""

from __future__ import annotations

import decimal
import json
import math
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

MISSING = "missing"
EXACT = 2**53
"""From here on a float64 may have been a neighboring whole number."""

ROUNDED = "came as a float, which may have rounded it; write it as a whole number"
INT64 = "(-9223372036854775808 to 9223372036854775807)"
PARQUET, CSV, JSON = "Parquet", "CSV", "JSONLines"
ALL = (PARQUET, CSV, JSON)
TYPED = (PARQUET, JSON)

Cell = tuple[Any, Any]
"""A value, and its outcome."""


@dataclass(frozen=True, slots=True)
class Case:
    """One column, and the input that reads it."""

    name: str
    kind: str
    """The contract's type."""

    column: Any
    """The column's Arrow type."""

    cells: tuple[Cell, ...]
    forms: tuple[str, ...] = ALL
    shape: tuple[int, ...] = ()
    refused: str = ""
    """What is said of the whole file, if its type is refused."""

    nullable: bool = False

    def table(self) -> pa.Table:
        """Return the case's table: keys k0, k1, … and the column x."""
        keys = [f"k{at}" for at in range(len(self.cells))]
        column = _column([value for value, _ in self.cells], self.column)
        return pa.table({"id": keys, "x": column})

    def outcomes(self) -> dict[str, Any]:
        """Return the outcome by key."""
        return {f"k{at}": outcome for at, (_, outcome) in enumerate(self.cells)}

    def events(self) -> list[bytes]:
        """Return the same cells as events."""
        return [
            b'{"id":"k%d","x":%s}' % (at, _as_json(value).encode())
            for at, (value, _) in enumerate(self.cells)
        ]


def _column(values: list[Any], to: Any) -> Any:
    if isinstance(to, pa.DictionaryType):
        return pa.array(values, to.value_type).dictionary_encode()
    if isinstance(to, pa.BaseExtensionType):
        storage = pa.array([None if v is None else v.bytes for v in values], to.storage_type)
        return pa.ExtensionArray.from_storage(to, storage)
    return pa.array(values, to)


def _as_json(value: Any) -> str:
    """Return a cell as a producer of events writes it: JSON has neither NaN nor infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, uuid.UUID):
        return json.dumps(str(value))
    return json.dumps(value, ensure_ascii=False)


def _whole(*values: Any) -> tuple[Cell, ...]:
    return tuple((value, MISSING if value is None else int(value)) for value in values)


def _texts(*values: Any) -> tuple[Cell, ...]:
    return tuple((value, MISSING if value is None else str(value)) for value in values)


_FLOATS: tuple[Cell, ...] = ((0.1, 0.1), (-2.0, -2.0), (1e300, 1e300), (5e-324, 5e-324))
_FLOATS32: tuple[Cell, ...] = (
    *((v, float(np.float32(v))) for v in (0.1, -2.0, 1e30)),
    (1e39, "1e+39 does not fit float32"),
)
_PLAIN = ("a", "é", "a,b", 'say "so"', "l1\nl2", "NULL", "None", "0x10", "00123", "1e5", "TRUE")
_BIG = (EXACT + 1, 2**63 - 1, -(2**63), 0, 12)
_LISTS: tuple[Cell, ...] = (
    ([1.0, 2.5], [1.0, 2.5]),
    ([1.0], "1 elements at depth 1, shape [2] was expected"),
    ([0.0, -1.0], [0.0, -1.0]),
)
_IDS = [uuid.UUID(int=n * 2**64 + 7) for n in range(3)]
_DECIMALS = [decimal.Decimal(n) for n in (EXACT + 1, 2**63 - 1, 5)]


def _bad(kind: str, texts: tuple[str, ...], said: str) -> tuple[Cell, ...]:
    return tuple((text, f"{text!r} is not {said}") for text in texts)


_WRONG_NUMBERS = ("0x10", "1_000", "١٢", "abc", "1,5", "--1")

CASES: tuple[Case, ...] = (
    Case("whole", "int64", pa.int64(), _whole(*_BIG)),
    Case("whole-null", "int64", pa.int64(), _whole(1, None, 3), TYPED),
    Case("whole-32", "int32", pa.int32(), _whole(1, -(2**31), 2**31 - 1)),
    Case(
        "whole-16",
        "int16",
        pa.int64(),
        ((40000, "40000 is outside int16 (-32768 to 32767)"), (7, 7)),
    ),
    Case("whole-8", "int8", pa.int8(), _whole(-128, 127)),
    Case("unsigned", "uint64", pa.uint64(), _whole(2**63 - 1, EXACT + 1, 0)),
    Case("unsigned-top", "uint64", pa.uint64(), _whole(2**64 - 1, 2**63), (PARQUET, CSV)),
    Case(
        "unsigned-into-signed",
        "int64",
        pa.uint64(),
        ((2**63, f"{2**63} is outside int64 {INT64}"), (5, 5)),
        (PARQUET, CSV),
    ),
    Case(
        "decimal",
        "int64",
        pa.decimal128(20, 0),
        tuple((d, int(d)) for d in _DECIMALS),
        (PARQUET, CSV),
    ),
    Case(
        "decimal-with-digits",
        "int64",
        pa.decimal128(38, 9),
        tuple((d, int(d)) for d in _DECIMALS),
        (PARQUET, CSV),
    ),
    Case(
        "decimal-fraction",
        "float64",
        pa.decimal128(10, 2),
        ((decimal.Decimal("1.25"), 1.25), (decimal.Decimal("-3.00"), -3.0)),
        (PARQUET, CSV),
    ),
    Case(
        "floats-as-whole",
        "int64",
        pa.float64(),
        ((1.0, 1), (1e3, 1000), (1.5, "1.5 is not a whole number"), (-0.0, 0)),
    ),
    Case(
        "floats-rounded",
        "int64",
        pa.float64(),
        ((float(EXACT), f"{EXACT} {ROUNDED}"), (float(EXACT - 1), EXACT - 1)),
        TYPED,
    ),
    Case("float", "float64", pa.float64(), _FLOATS),
    Case("float-nan", "float64", pa.float64(), ((math.nan, MISSING), (1.5, 1.5)), (PARQUET, CSV)),
    Case("float-null", "float64", pa.float64(), ((None, MISSING), (1.5, 1.5))),
    Case("float32-of-64", "float32", pa.float64(), _FLOATS32),
    Case("float32", "float32", pa.float32(), ((0.5, 0.5), (-3.25, -3.25))),
    Case(
        "whole-into-float",
        "float64",
        pa.int64(),
        ((EXACT + 1, f"{EXACT + 1} would be rounded in float64"), (EXACT, float(EXACT)), (3, 3.0)),
    ),
    Case(
        "whole-into-float32",
        "float32",
        pa.int64(),
        ((2**24 + 1, f"{2**24 + 1} would be rounded in float32"), (2**24, float(2**24))),
    ),
    Case("bool", "bool", pa.bool_(), ((True, True), (False, False))),
    Case("bool-null", "bool", pa.bool_(), ((True, True), (None, MISSING)), TYPED),
    Case("text", "string", pa.string(), _texts(*_PLAIN)),
    Case("text-empty", "string", pa.string(), _texts("", " ", "\t", "x"), TYPED),
    Case("text-null", "string", pa.string(), _texts("a", None, "b")),
    Case("text-large", "string", pa.large_string(), _texts(*_PLAIN)),
    Case("text-view", "string", pa.string_view(), _texts(*_PLAIN), (PARQUET,)),
    Case(
        "text-dictionary", "string", pa.dictionary(pa.int32(), pa.string()), _texts("a", "b", "a")
    ),
    Case("uuid", "string", pa.uuid(), tuple((each, str(each)) for each in _IDS), (PARQUET,)),
    Case(
        "text-of-number",
        "string",
        pa.int64(),
        ((1, ""),),
        (PARQUET,),
        refused="column x is int64, the contract says string",
    ),
    Case("date", "string", pa.date32(), ((0, ""),), (PARQUET,), refused="column x is date32"),
    Case(
        "time", "int64", pa.timestamp("us"), ((0, ""),), (PARQUET,), refused="column x is timestamp"
    ),
    Case(
        "time-zoned",
        "string",
        pa.timestamp("us", "UTC"),
        ((0, ""),),
        (PARQUET,),
        refused="column x is timestamp",
    ),
    Case(
        "nested",
        "float64",
        pa.struct([("a", pa.float64())]),
        (({"a": 1.0}, ""),),
        (PARQUET,),
        refused="column x is struct",
    ),
    Case("list", "float32", pa.list_(pa.float32()), _LISTS, TYPED, (2,)),
    Case("list-large", "float32", pa.large_list(pa.float64()), _LISTS, (PARQUET,), (2,)),
    Case(
        "list-fixed",
        "float32",
        pa.list_(pa.float32(), 2),
        (([1.0, 2.0], [1.0, 2.0]), ([3.0, 4.0], [3.0, 4.0])),
        (PARQUET,),
        (2,),
    ),
    Case(
        "bad-whole", "int64", pa.string(), _bad("int64", _WRONG_NUMBERS, "a whole number"), (CSV,)
    ),
    Case("bad-float", "float64", pa.string(), _bad("float64", _WRONG_NUMBERS, "a number"), (CSV,)),
    Case(
        "bad-bool",
        "bool",
        pa.string(),
        _bad("bool", ("yes", "2", "t rue"), "true or false"),
        (CSV,),
    ),
)
