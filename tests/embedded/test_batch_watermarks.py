"""Watermarks as real tables have them: their types, late rows, and what cannot be incremental."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_runtime.errors import SourceError
from fourways_runtime.io.store import open_run_store
from fourways_runtime.workloads.batch import BatchRun, succeeded
from tests.kit.batch_world import World

pytestmark = pytest.mark.embedded


class Folder:
    """A folder of Parquet files with a column ``at``, and runs over it."""

    def __init__(self, tmp_path: Path) -> None:
        self.world = World(tmp_path, f"sqlite:///{tmp_path}/store.db", "n")
        self.runs = 0

    def put(self, name: str, ids: list[str], at: Any) -> None:
        path = self.world.file(f"t/{name}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        columns: dict[str, Any] = {"id": ids, "age": [1] * len(ids)}
        columns["spend"] = pa.array([0.0] * len(ids), pa.float32())
        if at is not None:
            columns["at"] = at
        pq.write_table(pa.table(columns), path)

    def run(self, **more: Any) -> tuple[str, int, str]:
        """Return kind, how many predictions are not carried over, and what is reported."""
        self.runs += 1
        config = self.world.config(
            batch__source={"uri": "pvc://data/t"}, batch__incremental={"watermark": "at", **more}
        )
        run = BatchRun(config, f"r{self.runs}")
        message = succeeded(run.execute(), run.notes).message
        writer = open_run_store(self.world.uri)
        try:
            record = writer.runs("n", "churn")[0]
        finally:
            writer.close()
        return record.kind, record.rows - record.carried, message


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def decimals(*values: str) -> Any:
    return pa.array([decimal.Decimal(value) for value in values], pa.decimal128(38, 10))


TYPES: list[tuple[Callable[..., Any], list[Any]]] = [
    (lambda *v: pa.array(v), [9, 10, 11]),
    (lambda *v: pa.array(v), [9.5, 10.5, 11.5]),
    (decimals, ["9.0000000001", "10.0000000001", "10.0000000002"]),
    (decimals, ["9007199254740993", "9007199254741993", "9007199254742993"]),
    (lambda *v: pa.array(v).dictionary_encode(), ["2026-01-01", "2026-01-02", "2026-01-03"]),
    (lambda *v: pa.array(v, pa.string_view()), ["2026-01-01", "2026-01-02", "2026-01-03"]),
    (lambda *v: pa.array(v, pa.date32()), [dt.date(2026, 1, day) for day in (1, 2, 3)]),
    (lambda *v: pa.array(v, pa.timestamp("ns")), [dt.datetime(2026, 1, day) for day in (1, 2, 3)]),
    (
        lambda *v: pa.array(v, pa.timestamp("ms", "UTC")),
        [dt.datetime(2026, 1, day, tzinfo=dt.UTC) for day in (1, 2, 3)],
    ),
]


@pytest.mark.parametrize(
    ("make", "values"),
    TYPES,
    ids=["int", "float", "decimal", "large decimal", "category", "view", "date", "ns", "utc"],
)
def test_each_type_tells_new_rows_from_old_run_after_run(
    folder: Folder, make: Callable[..., Any], values: list[Any]
) -> None:
    first, second, third = values
    folder.put("a", ["a", "b"], make(first, second))
    assert folder.run()[0] == "full"
    # The row with the highest value is scored again, as is one without a value.
    folder.put("b", ["c"], make(third))
    kind, scored, _ = folder.run()
    assert (kind, scored) == ("watermark", 2)
    kind, scored, _ = folder.run()
    assert (kind, scored) == ("watermark", 1)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([True]), "column at is bool, which cannot be a watermark"),
        (pa.array([dt.time(1)]), "column at is time64[us], which cannot"),
        (pa.array([dt.timedelta(1)]), "column at is duration[us], which cannot"),
        (pa.array([[1]]), "column at is list<item: int64>, which"),
    ],
)
def test_a_type_without_an_order_is_named(folder: Folder, column: Any, told: str) -> None:
    folder.put("a", ["a"], column)
    with pytest.raises(SourceError) as error:
        folder.run()
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("days", "new"),
    [(["2026-01-01", "2026-01-02"], "2026-01-03"), (["9", "10"], "11")],
)
def test_a_folder_s_column_is_a_watermark_and_old_folders_are_not_read(
    folder: Folder, days: list[str], new: str
) -> None:
    for day in days:
        folder.put(f"at={day}/x", [f"k{day}"], None)
    assert folder.run()[:2] == ("full", 2)
    folder.put(f"at={new}/x", [f"k{new}"], None)
    assert folder.run()[:2] == ("watermark", 2)


async def test_what_cannot_be_compared_with_the_last_run_is_scored_whole_and_said(
    folder: Folder,
) -> None:
    folder.put("a", ["a"], pa.array([dt.datetime(2026, 1, 1)], pa.timestamp("us")))
    assert "all rows" not in folder.run()[2], "there was nothing to build on"
    later = [dt.datetime(2026, 1, day, tzinfo=dt.UTC) for day in (1, 2)]
    folder.put("a", ["a", "b"], pa.array(later, pa.timestamp("us", "UTC")))
    kind, scored, message = folder.run()
    assert (kind, scored) == ("full", 2)
    assert message == (
        "2 rows published, 0 rejected; all rows were scored: column at is a time with a zone, but "
        "the previous run ended at '2026-01-01T00:00:00'"
    )
    assert folder.run()[:2] == ("watermark", 1)


@pytest.mark.parametrize(
    ("column", "late", "lookback", "too_little"),
    [
        (pa.array([10, 20]), pa.array([19]), "1", None),
        (pa.array([10, 20]), pa.array([17]), "3", "2"),
        (
            pa.array([dt.datetime(2026, 1, day) for day in (1, 20)]),
            pa.array([dt.datetime(2026, 1, 18)]),
            "48h",
            "1d",
        ),
        (
            pa.array([dt.date(2026, 1, day) for day in (1, 20)]),
            pa.array([dt.date(2026, 1, 19)]),
            "1h",
            None,
        ),
    ],
)
async def test_late_rows_are_scored_as_far_back_as_wanted(
    folder: Folder, column: Any, late: Any, lookback: str, too_little: str | None
) -> None:
    folder.put("a", ["a", "b"], column)
    folder.run()
    folder.put("b", ["late"], late)
    if too_little is not None:
        folder.run(lookback=too_little)
        assert "late" not in await folder.world.rows("late", "a")
    kind, scored, _ = folder.run(lookback=lookback)
    assert (kind, scored) == ("watermark", 2)
    assert "late" in await folder.world.rows("late")


def test_a_lookback_that_fits_no_text_is_said(folder: Folder) -> None:
    folder.put("a", ["a"], ["v1"])
    folder.run()
    kind, _, message = folder.run(lookback="5")
    assert kind == "full"
    assert "lookback 5 cannot be taken from the watermark 'v1'" in message


def test_a_watermark_in_the_future_is_said(folder: Folder) -> None:
    ahead = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(days=400)
    folder.put("a", ["a"], pa.array([ahead], pa.timestamp("us", "UTC")))
    assert "lies in the future: until then, rows below it are not scored" in folder.run()[2]


def test_infinity_and_nan_are_no_watermarks(folder: Folder) -> None:
    folder.put("a", ["a", "b", "c"], [1.0, float("inf"), float("nan")])
    folder.run()
    folder.put("b", ["d"], [2.0])
    # Those without a value are new in each run; infinity is above every value.
    assert folder.run()[:2] == ("watermark", 4)
