"""A watermark is compared with a column of any type: exactly, never too high, never an error.

The column's type may have changed since the run that the watermark was taken from.
"""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_runtime.errors import SourceError
from fourways_runtime.io.sources.watermarks import highest, older
from fourways_runtime.scoring.splits import Newer
from tests.kit.table_files import keys, opened

D = decimal.Decimal
B = 2**53
NOON = dt.datetime(2026, 1, 1, 12, 0, 0, 500_000)
CASES: list[tuple[Any, Any, list[bool]]] = [
    (pa.array([dt.date(2025, 12, 31), dt.date(2026, 1, 1)]), "2026-01-01T12:00:00", [True, False]),
    (pa.array([NOON, None], pa.timestamp("us")), "2026-01-01", [False, False]),
    (pa.array([NOON], pa.timestamp("ms")), "2026-01-01T12:00:00.500400", [False]),
    (pa.array([NOON], pa.timestamp("ns")), "9999-12-31T00:00:00", [True]),
    (pa.array([NOON], pa.timestamp("ns")), "0001-01-01", [False]),
    (pa.array([NOON], pa.timestamp("us", "Asia/Tokyo")), "2026-01-01T14:00:00+01:00", [True]),
    (pa.array([1, 2], pa.int8()), 300, [True, True]),
    (pa.array([1, None], pa.int8()), 300, [True, False]),
    (pa.array([1, 2], pa.int8()), -300, [False, False]),
    (pa.array([1, 2], pa.uint64()), -1, [False, False]),
    (pa.array([B + 1, B + 2, B + 3]), float(B + 2), [True, False, False]),
    (pa.array([1, 2, 3]), 2.5, [True, True, False]),
    (pa.array([float(B), float(B + 2), float("nan")]), B + 1, [False, False, False]),
    (pa.array([float(B - 2), float(B)]), B + 1, [True, False]),
    (pa.array([1.0, 2.0**24], pa.float32()), 2**24 + 1, [True, False]),
    (pa.array(np.array([1, 2], np.float16)), 2, [True, False]),
    (pa.array([D(1), D(2)], pa.decimal128(20, 0)), 2, [True, False]),
    (pa.array([D(1), D(2)], pa.decimal32(5, 0)), 2, [True, False]),
]


@pytest.mark.parametrize(("column", "value", "expected"), CASES)
def test_a_row_is_older_by_its_value_and_not_by_its_type(
    tmp_path: Path, column: Any, value: Any, expected: list[bool]
) -> None:
    assert older(column, value).tolist() == expected
    path = tmp_path / "t.parquet"
    rows = range(len(column))
    pq.write_table(
        pa.table(
            {"id": list(map(str, rows)), "age": list(rows), "plan": ["p"] * len(column)}
        ).append_column("at", column),
        path,
    )
    table = opened(path, more=("at",))
    splits = table.splits(1000)
    newer = Newer("at", value)
    assert table.why_incomparable(newer) is None
    kept = [str(at) for at, old in enumerate(expected) if not old]
    assert keys(table, splits, newer) == kept


def test_the_highest_time_is_one_that_the_next_run_can_hold() -> None:
    last = pa.array([0, 253_402_300_799, 253_402_300_800, 2**63 - 1], pa.timestamp("s"))
    assert highest(last) == "9999-12-31T23:59:59"
    assert highest(pa.array([2**31 - 1, 1], pa.date32())) == "1970-01-02"
    assert highest(pa.array([2**63 - 1], pa.timestamp("us"))) is None
    assert older(last, "9999-12-31T23:59:59").tolist() == [True, False, False, False]


def test_the_highest_decimal_is_known_whatever_its_width() -> None:
    for to in (pa.decimal32(5, 1), pa.decimal64(10, 1), pa.decimal256(70, 1)):
        assert highest(pa.array([D("1.5"), D("2.5"), None], to)) == 2.5


def test_times_of_several_zones_are_compared_as_moments() -> None:
    moments = [0, 3600]  # the hour in which the clocks go back has two
    night = dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC)
    tops = [
        highest(pa.array([night + dt.timedelta(seconds=s)], pa.timestamp("us", "Europe/Berlin")))
        for s in moments
    ]
    assert tops == ["2026-10-25T00:30:00+00:00", "2026-10-25T01:30:00+00:00"]


def test_a_highest_text_that_is_not_utf8_is_never_higher_than_it_was() -> None:
    top = highest(pa.array([b"a", b"b\xc3("], pa.binary()))
    assert top == "b"
    assert older(pa.array([b"b\xc3)"], pa.binary()), top).tolist() == [False]


def test_files_whose_watermarks_cannot_be_compared_are_named(tmp_path: Path) -> None:
    for name, at in (("a", [1, 2]), ("b", ["x", "y"])):
        columns = {"id": [name, name], "age": [1, 2], "plan": ["p", "p"], "at": at}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    with pytest.raises(SourceError, match=r"a number in a\.parquet and a text in b\.parquet"):
        opened(tmp_path, more=("at",)).splits(1000)
