"""Whole batch runs, from each kind of source to each kind of sink."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_runtime.errors import SourceError, TooManyRejects
from fourways_runtime.io.sources import parquet_table
from fourways_runtime.io.store import open_run_store
from fourways_runtime.workloads import batch
from fourways_runtime.workloads.batch import BatchRun, succeeded
from tests.kit.batch_world import World
from tests.kit.secret_files import secret_folder
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded

COUNT = 500
GROUP = 100
IDS = [f"c{n}" for n in range(COUNT)]


@pytest.fixture
def world(tmp_path: Path, postgres: Server) -> World:
    uri = postgres.database()
    made = World(tmp_path, uri, "ns")
    secret_folder(tmp_path / "secrets" / "db", uri=uri)
    return made


def source(world: World, kind: str) -> dict[str, Any]:
    """Write the same rows in one of many ways, and return how they are found."""
    columns = {"id": IDS, "age": [n % 90 for n in range(COUNT)], "spend": [0.5] * COUNT}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    folder = world.file("in")
    folder.mkdir()
    if kind == "JSONLines":
        text = "\n".join(map(json.dumps, rows))
        (folder / "t.jsonl").write_text(text + "\n")
    elif kind == "CSV":
        lines = [",".join(map(str, row.values())) for row in rows]
        (folder / "t.csv").write_text("\n".join(["id,age,spend", *lines]) + "\n")
    elif kind == "Delta":
        deltalake = pytest.importorskip("deltalake")
        for at in range(0, COUNT, GROUP):
            part = pa.table({name: column[at : at + GROUP] for name, column in columns.items()})
            deltalake.write_deltalake(str(folder), part, mode="append")
    elif kind == "Parquet":
        pq.write_table(pa.table(columns), folder / "t.parquet", row_group_size=GROUP)
    else:
        with psycopg.connect(world.uri, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (n int, id text, age int, spend float4)")
            connection.execute(
                "INSERT INTO t SELECT n, 'c' || n, n % 90, 0.5 FROM generate_series(0, 499) n"
            )
        query = {"database": {"secretName": "db"}, "sql": "SELECT * FROM t", "splitBy": "n"}
        return {"query": query}
    return {"uri": "pvc://data/in", "format": kind}


def run(world: World, where: dict[str, Any], name: str = "r1", **changes: Any) -> Any:
    secrets = str(world.root / "secrets")
    return world.run(name, batch__source=where, paths__secretsRoot=secrets, **changes)


@pytest.mark.parametrize("kind", ["Parquet", "CSV", "JSONLines", "Delta", "query"])
async def test_every_source_comes_to_the_same_predictions(world: World, kind: str) -> None:
    done = run(world, source(world, kind))
    assert (done.rows, done.rejects) == (COUNT, 0)
    found = await world.rows("c0", "c499")
    assert {key: row["y"] for key, row in found.items()} == {"c0": 1.0, "c499": 2 * 49.5}


async def test_rows_of_one_value_are_divided_and_the_run_says_so(world: World) -> None:
    where = source(world, "query")
    where["query"]["sql"] = "SELECT *, CASE WHEN n % 20 = 0 THEN n ELSE 7 END AS uneven FROM t"
    where["query"]["splitBy"] = "uneven"
    small = world.config(
        batch__source=where,
        paths__secretsRoot=str(world.root / "secrets"),
        memoryBytes=8 * 20 * (8 * 3 + 64),
    )
    run = BatchRun(small, "r1")
    message = succeeded(run.execute(), run.notes).message
    assert message.startswith(f"{COUNT} rows published, 0 rejected; splitBy is skewed: one value")
    found = await world.rows("c0", "c499")
    assert {key: row["y"] for key, row in found.items()} == {"c0": 1.0, "c499": 2 * 49.5}


@pytest.fixture(params=["Parquet", "Delta", "table"])
def sink(request: pytest.FixtureRequest, world: World) -> dict[str, Any]:
    if request.param != "table":
        return {"files": {"uri": "pvc://data/out", "format": request.param}}
    with psycopg.connect(world.uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE out (id text PRIMARY KEY, doubled float8)")
    mapped = [{"output": "y", "column": "doubled"}]
    return {"table": {"database": {"secretName": "db"}, "table": "out", "columns": mapped}}


def test_predictions_of_two_runs_go_to_a_sink_and_the_store_keeps_their_record(
    world: World, sink: dict[str, Any]
) -> None:
    where = source(world, "Parquet")
    for name in ("r1", "r2"):
        done = run(world, where, name, batch__sink=sink)
        assert (done.name, done.rows) == (name, COUNT)
        assert seen(world, sink) == {f"c{n}": 2 * (n % 90 + 0.5) for n in range(COUNT)}


def test_repeated_keys_are_rejects_wherever_predictions_go(
    world: World, sink: dict[str, Any]
) -> None:
    ages = [n % 90 for n in range(COUNT)]
    ages[7] = -1  # Refused: the rows behind it stand one further down than they lie in the file.
    world.table(
        id=[f"c{n // 2 if n in (20, 300) else n}" for n in range(COUNT)],
        age=ages,
        spend=[0.5] * COUNT,
        row_group_size=GROUP,
    )
    where = {"uri": "pvc://data/table.parquet"}
    told = []
    for name, to in (("elsewhere", sink), ("store", None)):
        with pytest.raises(TooManyRejects, match="3 of 500 rows were rejected"):
            run(world, where, "few", batch__sink=to, batch__maxRejects="2")
        done = run(world, where, name, batch__sink=to, batch__maxRejects="3")
        assert (done.rows, done.rejects) == (COUNT - 3, 3)
        with closing(open_run_store(world.uri)) as writer:
            told.append(writer.rejects("ns", "churn", name))
    assert told[0] == told[1]
    assert [(reject.row, reject.key) for reject in told[0]] == [
        (7, "c7"),
        (10, "c10"),
        (150, "c150"),
    ]
    assert seen(world, sink)["c10"] == 2 * 20.5


def test_what_a_run_given_up_wrote_goes_with_its_record(world: World, sink: dict[str, Any]) -> None:
    where = source(world, "Parquet")

    def left() -> list[str]:
        if "table" not in sink:
            return sorted(
                path.name
                for path in world.file("out").rglob("*")
                if path.is_file() and "dead" in str(path)
            )
        with psycopg.connect(world.uri) as connection:
            found = connection.execute("SELECT relname FROM pg_class WHERE relname ~ '^fourways_'")
            return [name for (name,) in found]

    class Killed(BaseException):
        pass

    dying = batch.BatchRun(
        world.config(
            batch__source=where, batch__sink=sink, paths__secretsRoot=str(world.root / "secrets")
        ),
        "dead",
    )

    def die(stage: str, **details: Any) -> None:
        if stage == "written":
            raise Killed

    dying.context.log = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        dying.execute()
    assert left()
    run(world, where, "alive", batch__sink=sink)
    if "table" in sink:
        assert len(left()) == 1, "what the published run wrote beside the table is kept empty"
    else:
        assert left() == []
    with closing(open_run_store(world.uri)) as writer:
        assert [each.name for each in writer.runs("ns", "churn")] == ["alive"]


def seen(world: World, sink: dict[str, Any]) -> dict[str, float]:
    if "table" in sink:
        with psycopg.connect(world.uri) as connection:
            return dict(connection.execute("SELECT id, doubled FROM out").fetchall())
    out = world.file("out")
    if sink["files"]["format"] == "Parquet":
        table = pq.read_table(out / json.loads((out / "_latest").read_bytes())["path"])
    else:
        from deltalake import DeltaTable

        table = DeltaTable(str(out)).to_pyarrow_table()
    return dict(zip(table["id"].to_pylist(), table["y"].to_pylist(), strict=True))


def test_a_file_that_changes_while_a_run_is_under_way_ends_it_with_its_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = source(world, "Parquet")
    path = world.file("in") / "t.parquet"
    real = parquet_table.ParquetTable._read

    def read(self: Any, *arguments: Any) -> Any:
        pq.write_table(pq.read_table(path).slice(1), path, row_group_size=GROUP)
        return real(self, *arguments)

    monkeypatch.setattr(parquet_table.ParquetTable, "_read", read)
    with pytest.raises(SourceError, match="in: changed while it was read"):
        run(world, where)


def test_poisoned_lines_are_rejects_and_too_many_end_the_run(world: World) -> None:
    where = source(world, "JSONLines")
    with (world.file("in") / "t.jsonl").open("a") as file:
        file.write('{"id": "x", "age": \n[1]\n{"id": "y", "age": "old", "spend": 1}\n')
    with pytest.raises(TooManyRejects, match="row 500: row: line 501: it is not JSON"):
        run(world, where)
    done = run(world, where, "r2", batch__maxRejects="3")
    assert (done.rows, done.rejects) == (COUNT, 3)


@pytest.mark.parametrize("form", ["CSV", "JSONLines"])
async def test_only_newer_lines_are_scored(world: World, form: str) -> None:
    def write(rows: list[tuple[str, int, str]]) -> dict[str, Any]:
        named = [{"id": key, "age": age, "spend": 0.5, "at": at} for key, age, at in rows]
        if form == "CSV":
            lines = ["id,age,spend,at", *(",".join(map(str, row.values())) for row in named)]
        else:
            lines = list(map(json.dumps, named))
        world.file("t").write_text("\n".join(lines) + "\n")
        return {"uri": "pvc://data/t", "format": form}

    how = {"batch__incremental": {"watermark": "at"}}
    rows = [("a", 1, "9"), ("b", 2, "10"), ("c", 3, "8")]
    run(world, write(rows), "r1", **how)
    second = batch.BatchRun(
        world.config(batch__source=write([*rows, ("d", 4, "11"), ("a", 5, "100")][1:]), **how), "r2"
    )
    second.execute()
    # As texts, "9" would have been the highest, and only what is at least that new.
    assert second.progress.rows == 3
    found = await world.rows("a", "b", "c", "d")
    assert {key: row["y"] for key, row in found.items()} == {"a": 11, "b": 5, "c": 7, "d": 9}
