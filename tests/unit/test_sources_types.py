"""Column types as other writers leave them: each value as it was written, or refused by name."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import Contract
from fourways_runtime.errors import SourceError
from fourways_runtime.io.postgres.copy_out import Column, Unpacker
from fourways_runtime.scoring.cells import accepts
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.hashing import row_hashes
from tests.kit.table_files import opened

YEAR = dt.datetime(9999, 12, 31, 23, 59, 59)


def contract(kind: str, **more: Any) -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "x", "type": kind, **more}],
            "outputs": [{"name": "y", "type": "float64"}],
        }
    )


def decoded(batch: Any, kind: str, **more: Any) -> tuple[list[Any], list[str]]:
    found, rejects = Decoder(contract(kind, **more)).decode(batch, np.arange(batch.num_rows))
    return found.columns["x"].tolist(), [str(each) for each in rejects]


def batch(column: Any) -> Any:
    ids = [f"k{at}" for at in range(len(column))]
    return pa.RecordBatch.from_arrays([pa.array(ids), column], ["id", "x"])


def of_file(path: Path, column: Any, kind: str, **more: Any) -> tuple[list[Any], list[str]]:
    options = (
        {"use_deprecated_int96_timestamps": True} if pa.types.is_timestamp(column.type) else {}
    )
    pq.write_table(pa.Table.from_batches([batch(column)]), path, **options)
    table = opened(path, contract=contract(kind, **more))
    (chunk,) = table.chunks()
    return decoded(chunk.batch, kind, **more)


def test_spark_s_old_timestamps_keep_years_that_nanoseconds_cannot_hold(tmp_path: Path) -> None:
    moments = [dt.datetime(1, 1, 1), dt.datetime(2026, 1, 1, 0, 0, 0, 5), YEAR]
    column = pa.array(moments, pa.timestamp("us"))
    found = of_file(tmp_path / "t.parquet", column, "timestamp_us")
    epoch = dt.datetime(1970, 1, 1)
    assert found == ([(each - epoch) // dt.timedelta(microseconds=1) for each in moments], [])


@pytest.mark.parametrize(
    "of",
    [
        pa.list_(pa.string_view()),
        pa.large_list(pa.string_view()),
        pa.list_(pa.string_view(), 2),
        pa.list_(pa.binary_view()),
    ],
)
@pytest.mark.parametrize("size", [2, -1])
def test_lists_of_string_views_are_read(tmp_path: Path, of: Any, size: int) -> None:
    column = pa.array([["a", "é"], ["b", "c"]], of)
    found, rejects = of_file(tmp_path / "t.parquet", column, "string", shape=[size])
    assert (found, rejects) == ([["a", "é"], ["b", "c"]], [])


@pytest.mark.parametrize("kind", ["date", "timestamp_s", "timestamp_us", "timestamp_ns"])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**31 - 1, 0, 1 - 2**31], pa.date32()),
        pa.array([2**63 - 1, 0, -(2**63)], pa.timestamp("us")),
        pa.array([2**63 - 1, 0, 1 - 2**63], pa.timestamp("s", "UTC")),
    ],
    ids=["date", "microseconds", "seconds"],
)
def test_a_moment_that_is_infinite_is_refused(kind: str, column: Any) -> None:
    found, rejects = decoded(batch(column), kind)
    assert found == [0]
    if kind == "timestamp_ns" or pa.types.is_timestamp(column.type):
        assert [each.partition(": ")[2].split()[0] for each in rejects] == ["inf", "-inf"]
    assert len(rejects) == 2


def test_a_moment_beyond_the_years_of_python_is_refused_by_name() -> None:
    _, rejects = decoded(batch(pa.array([10**12], pa.timestamp("s"))), "timestamp_ns")
    (told,) = rejects
    assert "is outside timestamp_ns; choose a coarser unit" in told


@pytest.mark.parametrize(
    ("kind", "form", "ends", "expected"),
    [
        ("date", ">i4", (2**31 - 1, -(2**31)), [0]),
        ("timestamp", ">i8", (2**63 - 1, -(2**63)), [946_684_800_000_000]),
        ("timestamptz", ">i8", (2**63 - 1, -(2**63)), [946_684_800_000_000]),
    ],
)
def test_postgresql_s_infinity_stays_infinite(
    kind: str, form: str, ends: tuple[int, int], expected: list[int]
) -> None:
    """Counted from 1970 instead of 2000, it must not come out as a moment long ago."""
    size = np.dtype(form).itemsize
    rows = [
        (1).to_bytes(2, "big") + size.to_bytes(4, "big") + np.array([each], form).tobytes()
        for each in (ends[0], 0, ends[1])
    ]
    (column,) = Unpacker([Column("x", kind)]).unpack(rows).columns
    found, rejects = decoded(batch(column), "timestamp_us")
    assert rejects == ["x: inf is not finite", "x: -inf is not finite"]
    assert found == ([10_957 * 86_400 * 10**6] if kind == "date" else expected)


HASHED: list[tuple[str, tuple[int, ...], Any]] = [
    ("date", (), pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2), None])),
    ("date", (), pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2), None], pa.date64())),
    ("date", (2,), pa.array([[dt.date(2026, 1, 1)] * 2, [dt.date(2026, 1, 2)] * 2, None])),
    ("timestamp_us", (), pa.array([YEAR, dt.datetime(1, 1, 1), None], pa.timestamp("us"))),
    ("timestamp_us", (), pa.array([1, 2, None], pa.timestamp("ns", "Asia/Tokyo"))),
    ("float64", (), pa.array(np.array([1, 2, 3], np.float16))),
    ("float64", (), pa.array([decimal.Decimal(10) ** 50, decimal.Decimal(1), None])),
    ("uint64", (), pa.array([2**64 - 1, 1, None], pa.uint64())),
    ("bool", (), pa.array([True, False, None])),
    ("string", (), pa.array(["a", "b", None], pa.large_string())),
    ("string", (), pa.array(["a", "b", None]).dictionary_encode()),
    ("bytes", (), pa.array([b"a", b"\xff", None], pa.large_binary())),
    ("float32", (1,), pa.array([[1.5], [2.5], None], pa.list_(pa.float32(), 1))),
    ("string", (1,), pa.array([["a"], ["b"], None], pa.large_list(pa.string()))),
]


@pytest.mark.parametrize(("kind", "shape", "column"), HASHED)
def test_every_type_that_an_input_accepts_has_a_row_hash(
    kind: str, shape: tuple[int, ...], column: Any
) -> None:
    assert accepts(kind, shape, column.type)
    found = row_hashes(pa.RecordBatch.from_arrays([column], ["x"]), ("x",)).tolist()
    assert len(set(found)) == 3
    parts = [column.slice(at, 1) for at in range(3)]
    assert found == [row_hashes(pa.RecordBatch.from_arrays([p], ["x"]), ("x",))[0] for p in parts]


@pytest.mark.parametrize("form", ["Parquet", "CSV", "JSONLines"])
def test_a_nullable_column_in_other_letters_is_not_null(tmp_path: Path, form: str) -> None:
    asked = contract("float64", nullable=True)
    if form == "Parquet":
        pq.write_table(pa.table({"id": ["a"], "x": [1.0]}), tmp_path / "a.parquet")
        pq.write_table(pa.table({"id": ["b"], "X": [2.0]}), tmp_path / "b.parquet")
    elif form == "CSV":
        (tmp_path / "a.csv").write_text("id,x\na,1\n")
        (tmp_path / "b.csv").write_text("id,X\nb,2\n")
    else:
        (tmp_path / "a.jsonl").write_text('{"id":"a","x":1}\n')
        (tmp_path / "b.jsonl").write_text('{"id":"b","X":2}\n')
    with pytest.raises(SourceError, match=r"^b\.\w+: column x is missing, and X is there"):
        opened(tmp_path, form, asked).splits(10)


def test_blanks_around_a_name_in_the_first_line_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id, x\na,1\n")
    with pytest.raises(SourceError, match="remove the blanks around its name in the first line"):
        opened(tmp_path, "CSV", contract("float64")).splits(10)


def test_a_column_whose_name_is_not_utf8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a"], "x": [1.0], "zzz": [1]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"zzz", "zöz".encode("latin-1")))
    with pytest.raises(SourceError, match=r"a\.parquet: the name of a column is not UTF-8"):
        opened(path, contract=contract("float64")).splits(10)
