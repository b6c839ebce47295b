"""Runs that score only what is new: the outcome is that of a full run, however it came about."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_runtime.errors import CheckFailed
from fourways_runtime.io.sources import parquet_table
from fourways_runtime.io.store import open_run_store, sqlite_database
from fourways_runtime.io.store.runs.record import RunRecord
from fourways_runtime.scoring.hashing import row_hashes
from tests.kit.batch_world import World

pytestmark = pytest.mark.embedded

HASH = {"rowHash": True}
ROWS = 40


@pytest.fixture
def table(each_world: World) -> Table:
    return Table(each_world)


class Table:
    """A table of keys with an age and the moment of their last change."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows: dict[str, tuple[int, int]] = {f"c{n:03}": (n, n) for n in range(ROWS)}
        self.write()

    def write(self) -> None:
        ids = list(self.rows)
        columns = {
            "id": ids,
            "age": [age for age, _ in self.rows.values()],
            "spend": pa.array([0.0] * len(ids), pa.float32()),
            "at": [at for _, at in self.rows.values()],
        }
        pq.write_table(pa.table(columns), self.world.file("table.parquet"), row_group_size=10)

    def change(self, key: str, age: int, at: int) -> None:
        self.rows[key] = (age, at)
        self.write()

    def run(self, name: str, incremental: dict[str, Any], **changes: Any) -> RunRecord:
        changes.setdefault("batch__maxRejects", "10")
        self.world.run(name, batch__incremental=incremental, **changes)
        return self.listed()[0]

    def listed(self) -> list[RunRecord]:
        writer = open_run_store(self.world.uri)
        try:
            return writer.runs("n", "churn")
        finally:
            writer.close()

    def refused(self, run: str) -> list[str | None]:
        writer = open_run_store(self.world.uri)
        try:
            return [reject.key for reject in writer.rejects("n", "churn", run)]
        finally:
            writer.close()

    async def holds(self, *, but: tuple[str, ...] = ()) -> None:
        """Check that each row of the table has its answer, and no other key has one."""
        keys = [*self.rows, "gone", "c001", "c002"]
        expected = {k: {"y": float(2 * age)} for k, (age, _) in self.rows.items() if k not in but}
        assert await self.world.rows(*keys) == expected


@pytest.mark.parametrize("how", [{"watermark": "at"}, HASH], ids=["watermark", "hash"])
async def test_what_changed_is_scored_and_the_rest_carried_over(
    table: Table, how: dict[str, Any]
) -> None:
    first = table.run("r1", how)
    assert (first.kind, first.rows, first.carried) == ("full", ROWS, 0)
    table.change("c003", 77, at=100)
    table.change("new", 78, at=101)
    second = table.run("r2", how)
    kind = "hash" if how is HASH else "watermark"
    # The row with the highest watermark of the last run is scored again.
    scored = 2 if how is HASH else 3
    assert (second.kind, second.rows) == (kind, ROWS + 1)
    assert second.carried == ROWS + 1 - scored
    await table.holds()
    table.change("c004", 79, at=102)
    table.change("new", 80, at=103)
    assert table.run("r3", how).rows == ROWS + 1
    await table.holds()
    for at in range(20):
        table.change(f"c{at:03}", 30 + at, at=200 + at)
    assert table.run("r4", how).rows == ROWS + 1
    await table.holds()
    assert table.run("r5", how).rows == ROWS + 1
    await table.holds()


def test_sqlite_s_work_grows_no_faster_than_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    connect = sqlite_database.connect

    def counting(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_progress_handler(count, 100)
        return connection

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def work(rows: int) -> int:
        world = World(tmp_path / str(rows), f"sqlite:///{tmp_path}/{rows}.db", "n")
        ids, spend = [f"c{n}" for n in range(rows)], pa.array([0.0] * rows, pa.float32())
        for name, tenth in (("r1", 1), ("r2", 2)):
            before = steps
            ages = [1 if n % 10 else tenth for n in range(rows)]
            world.table(id=ids, age=ages, spend=spend)
            world.run(name, batch__incremental={"rowHash": True, "deletions": "Remove"})
        return steps - before

    monkeypatch.setattr(sqlite_database, "connect", counting)
    # A little more than twice for twice the rows; each against each would be four times.
    assert work(4000) < 3 * work(2000)


async def test_a_changed_row_that_is_refused_loses_the_answer_it_had(table: Table) -> None:
    table.run("r1", HASH)
    table.change("c005", -1, at=100)
    run = table.run("r2", HASH)
    assert (run.rows, run.rejects) == (ROWS - 1, 1)
    await table.holds(but=("c005",))
    assert table.run("r3", HASH).rejects == 1
    await table.holds(but=("c005",))
    table.change("c005", 5, at=101)
    assert table.run("r4", HASH).rows == ROWS
    await table.holds()


@pytest.mark.parametrize("deletions", ["Keep", "Remove"])
async def test_rows_that_are_gone_are_handled_as_declared(table: Table, deletions: str) -> None:
    how = HASH | {"deletions": deletions}
    table.run("r1", how)
    gone = table.rows.pop("c001")
    table.change("c003", 50, at=100)
    table.run("r2", how)
    if deletions == "Keep":
        table.rows["c001"] = gone
    await table.holds()
    table.write()
    if deletions == "Remove":
        table.change("c001", 51, at=101)
    table.run("r3", how)
    await table.holds()


def sections_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the row group of each section that is read from now on."""
    found: list[int] = []
    read = parquet_table.ParquetTable.read

    def noting(self: Any, split: Any, newer: Any = None) -> Any:
        found.append(split.detail["groups"][0])
        return read(self, split, newer)

    monkeypatch.setattr(parquet_table.ParquetTable, "read", noting)
    return found


@pytest.mark.parametrize("deletions", ["Keep", "Remove"])
async def test_sections_whose_bytes_are_the_same_are_not_read(
    table: Table, deletions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = HASH | {"deletions": deletions}
    table.run("r1", how)
    read = sections_read(monkeypatch)
    again = table.run("r2", how)
    assert (again.rows, again.carried, read) == (ROWS, ROWS, [])
    table.change("c013", 77, at=0)
    run = table.run("r3", how)
    assert (run.kind, run.rows, run.carried, read) == ("hash", ROWS, ROWS - 1, [1])
    await table.holds()
    # Rows that move to other sections are known by their hashes.
    read.clear()
    gone = table.rows.pop("c005")
    table.write()
    run = table.run("r4", how)
    assert read == [0, 1, 2, 3]
    assert run.rows == ROWS - (deletions == "Remove")
    if deletions == "Keep":
        table.rows["c005"] = gone
    await table.holds()
    read.clear()
    assert table.run("r5", how).rows == ROWS - (deletions == "Remove")
    assert read == []
    await table.holds()


async def test_a_section_with_a_refused_row_is_read_by_each_run(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.change("c025", -1, at=0)
    assert table.run("r1", HASH).rejects == 1
    read = sections_read(monkeypatch)
    for name in ("r2", "r3"):
        run = table.run(name, HASH)
        assert (run.rows, run.rejects) == (ROWS - 1, 1)
        assert table.refused(name) == ["c025"]
    assert read == [2, 2]
    await table.holds(but=("c025",))


def test_a_run_that_kept_no_hashes_is_not_built_on(table: Table) -> None:
    """Such is one published before hashes were recorded by section."""
    table.run("r1", HASH)
    writer = open_run_store(table.world.uri)
    writer.database.change("DELETE FROM @sections")
    writer.close()
    assert table.run("r2", HASH).kind == "full"
    assert table.run("r3", HASH).kind == "hash"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "hash"),
        ({"model__version": "v2"}, "full"),
        ({"contract__outputs": [{"name": "z", "type": "float32", "tensor": "y"}]}, "full"),
        ({"incremental": {"watermark": "at"}}, "full"),
    ],
)
def test_all_is_scored_where_the_answers_before_may_not_hold(
    table: Table, changes: dict[str, Any], kind: str
) -> None:
    table.run("r1", HASH)
    how = changes.pop("incremental", HASH)
    assert table.run("r2", how, **changes).kind == kind
    changes["incremental"] = how


def test_all_is_scored_every_so_many_runs(table: Table) -> None:
    how = HASH | {"fullEvery": 3}
    kinds = [table.run(f"r{at}", how).kind for at in range(7)]
    assert kinds == ["full", "hash", "hash", "full", "hash", "hash", "full"]


@pytest.mark.parametrize("how", [{"watermark": "at"}, HASH], ids=["watermark", "hash"])
async def test_a_row_that_gave_way_to_another_does_so_again(
    table: Table, how: dict[str, Any]
) -> None:
    ages, ids = list(range(ROWS)), list(table.rows)
    ids[5] = ids[30]
    columns = {"id": ids, "age": ages, "spend": pa.array([0.0] * ROWS, pa.float32())}
    columns["at"] = [9 if row == 5 else 1 for row in ages]
    pq.write_table(pa.table(columns), table.world.file("table.parquet"))
    for name in ("r1", "r2"):
        assert table.run(name, how).rejects == 1
        assert await table.world.rows("c030") == {"c030": {"y": 60.0}}
    table.write()
    assert table.run("r3", how).kind == "full"
    assert table.run("r4", how).kind != "full"


async def test_a_run_that_was_rolled_back_is_not_built_on(table: Table) -> None:
    table.run("r1", HASH)
    table.change("c003", 60, at=100)
    table.run("r2", HASH)
    writer = open_run_store(table.world.uri)
    assert writer.rollback("n", "churn") == "r1"
    assert [run.current for run in writer.runs("n", "churn")] == [False, True]
    assert (await table.world.rows("c003")) == {"c003": {"y": 6.0}}
    table.run("r3", HASH)
    await table.holds()
    difference = writer.difference("n", "churn", "r1", "r3")
    assert (difference.only_before, difference.only_after, difference.changed) == (0, 0, 1)
    assert difference.common == ROWS
    shift = difference.shifts["y"]
    assert shift.before is not None
    assert shift.after == pytest.approx(shift.before + 2 * 57 / ROWS)
    writer.close()


def test_only_what_the_latest_runs_need_is_kept(table: Table) -> None:
    for at in range(6):
        table.change("c003", at, at=100 + at)
        table.run(f"r{at}", {"watermark": "at"}, batch__keepRuns=2)
    writer = open_run_store(table.world.uri)
    assert [run.name for run in writer.runs("n", "churn")] == ["r5", "r4"]
    # Two tables of changes and the one beneath, each change with its view; or two whole tables.
    names = writer.database.relations()
    assert len(names) == (5 if "sql:" in table.world.uri else 2)
    writer.close()


# ---------------------------------------------------------------- checks


CHECKS: list[tuple[dict[str, Any], list[int], str | None]] = [
    ({"minRows": 41}, list(range(40)), "40 predictions, minRows is 41"),
    ({"minRows": 40}, list(range(40)), None),
    ({"maxRowChange": "10%"}, list(range(35)), "35 predictions where run r1 has 40: 12.50% apart"),
    ({"maxRowChange": "10%"}, list(range(44)), None),
    ({"maxDrift": 0.2}, [119] * 40, "y: the distribution is "),
    ({"maxDrift": 0.2}, list(range(39, -1, -1)), None),
]


@pytest.mark.parametrize(("checks", "ages", "told"), CHECKS)
async def test_a_run_that_fails_a_check_is_not_published(
    each_world: World,
    checks: dict[str, Any],
    ages: list[int],
    told: str | None,
) -> None:
    table = Table(each_world)
    table.run("r1", HASH)
    table.rows = {f"c{n:03}": (age, n) for n, age in enumerate(ages)}
    table.write()
    if told is None:
        each_world.run("r2", batch__checks=checks)
        return
    with pytest.raises(CheckFailed) as error:
        each_world.run("r2", batch__checks=checks)
    assert str(error.value).startswith(told)
    assert (await each_world.rows("c000"))["c000"] == {"y": 0.0}
    failed, _ = table.listed()
    assert (failed.name, failed.state, failed.reason) == ("r2", "failed", "CheckFailed")
    assert failed.message == str(error.value)


# ---------------------------------------------------------------- hashes


def test_hashes_tell_values_apart_and_do_not_depend_on_batches_or_widths() -> None:
    text = ["", "a", "b", "ab", "ba", "a" * 300, "a" * 299 + "b", None, "ü"]
    columns: dict[str, Any] = {
        "text": text,
        "whole": [0, 1, -1, 2, 3, 4, 5, 6, None],
        "part": [0.0, 0.5, -0.5, float("nan"), None, 1.0, 2.0, 3.0, 4.0],
        "list": [[], [1.0], [1.0, 2.0], [2.0, 1.0], None, [0.0], [0.0, 0.0], [3.0], [4.0]],
        "truth": [True, False, None, True, True, True, False, False, False],
        "when": [datetime(2026, 1, day) for day in range(1, 10)],
    }
    batch = pa.RecordBatch.from_pydict(columns)
    for name in columns:
        hashes = row_hashes(batch, (name,))
        distinct = len({repr(value) for value in columns[name]})
        assert len(set(hashes.tolist())) == distinct, name
        parts = [row_hashes(batch.slice(at, 2), (name,)) for at in range(0, 9, 2)]
        assert np.concatenate(parts).tolist() == hashes.tolist()
    narrow = batch.column("whole").cast(pa.int8())
    wide = row_hashes(batch, ("whole",))
    assert row_hashes(pa.RecordBatch.from_pydict({"whole": narrow}), ("whole",)).tolist() == (
        wide.tolist()
    )
    both = row_hashes(batch, ("text", "whole"))
    assert both.tolist() != row_hashes(batch, ("whole", "text")).tolist()


def test_hashes_of_many_rows_do_not_meet() -> None:
    count = 200_000
    batch = pa.RecordBatch.from_pydict(
        {"id": np.arange(count), "x": (np.arange(count) % 7).astype(np.float32)}
    )
    assert len(np.unique(row_hashes(batch, ("id", "x")))) == count
    assert len(np.unique(row_hashes(batch, ("x",)))) == 7
    texts = pa.RecordBatch.from_pydict({"id": [f"customer-{n}" for n in range(count)]})
    assert len(np.unique(row_hashes(texts, ("id",)))) == count
