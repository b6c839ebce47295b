"""Splits, folders by column, JSON Lines and Delta Lake; files that vanish or change meanwhile."""

from __future__ import annotations

import gzip
import uuid
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import Contract
from fourways_runtime.errors import SourceError
from fourways_runtime.io.fetch.beneath_fs import BeneathFileSystem
from fourways_runtime.io.sources import json_table
from fourways_runtime.io.sources.arrow_types import plain_column
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.splits import Newer, Split
from tests.kit.table_files import CONTRACT, keys, opened, parquet

# ---------------------------------------------------------------- splits


def test_another_worker_reads_a_split_without_looking_at_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        parquet(tmp_path / f"{name}.parquet", [f"{name}{n}" for n in range(10)], size=3)
    table = opened(tmp_path)
    splits = table.splits(6)
    assert [(s.number, s.file, s.rows, s.first) for s in splits[:3]] == [
        (0, "a.parquet", 6, 0),
        (1, "a.parquet", 4, 6),
        (2, "b.parquet", 6, 10),
    ]
    assert table.total_rows == sum(split.rows for split in splits) == 30
    written = [Split(**orjson.loads(orjson.dumps(vars_of(split)))) for split in splits]
    assert opened(tmp_path).splits(6) == written
    parquet(tmp_path / "0-added-since.parquet", ["new"])
    other = opened(tmp_path)
    monkeypatch.setattr(BeneathFileSystem, "ls", lambda *_, **__: pytest.fail("listed"))
    assert keys(other, written[2:4]) == [f"b{n}" for n in range(10)]


def vars_of(split: Split) -> dict[str, Any]:
    return {name: getattr(split, name) for name in Split.__slots__}


@pytest.mark.parametrize("form", ["Parquet", "CSV", "JSONLines"])
def test_a_file_that_is_gone_or_another_by_now_is_named(tmp_path: Path, form: str) -> None:
    def write(count: int) -> Path:
        names = [f"k{n}" for n in range(count)]
        if form == "Parquet":
            return parquet(tmp_path / "t.parquet", names)
        if form == "CSV":
            path = tmp_path / "t.csv"
            path.write_text("id,age,plan\n" + "".join(f"{name},1,p\n" for name in names))
            return path
        return lines(tmp_path / "t.jsonl", *({"id": name, "age": 1} for name in names))

    path = write(10)
    table = opened(path, form)
    splits = table.splits(100)
    write(11)
    with pytest.raises(SourceError, match=r"t\.\w+: changed while it was read"):
        keys(table, splits)
    path.unlink()
    with pytest.raises(
        SourceError, match=r"t\.\w+: no longer exists; it existed when the run started"
    ):
        keys(table, splits)


def test_a_file_that_changes_under_the_reader_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", [f"k{n}" for n in range(40_000)], size=40_000)
    table = opened(path)
    reading = table.read(table.splits(100_000)[0])
    next(reading)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b" ")
    with pytest.raises(SourceError, match="changed while it was read"):
        list(reading)


def test_row_groups_without_a_newer_row_are_not_read(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "t.parquet",
        [f"k{n}" for n in range(100)],
        size=10,
        at=[*range(95), None, *range(96, 100)],
    )
    table = opened(path, more=("at",))
    (split,) = table.splits(1000)
    found = list(table.read(split, Newer("at", 93)))
    assert [k for c in found for k in c.batch.column("id").to_pylist()] == [
        f"k{n}" for n in range(93, 100)
    ]
    with pytest.raises(SourceError, match="column at is missing; the watermark is read from it"):
        opened(parquet(tmp_path / "u.parquet", ["a"]), more=("at",)).splits(1)


def test_columns_that_come_are_ignored_and_columns_that_go_are_named(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", ["a"])
    parquet(tmp_path / "b.parquet", ["b"], added=[1])
    table = opened(tmp_path)
    assert keys(table, table.splits(10)) == ["a", "b"]
    parquet(tmp_path / "c.parquet", ["c"], age=["old"])
    with pytest.raises(SourceError, match=r"^c\.parquet: column age is string, the contract says"):
        opened(tmp_path).splits(10)
    parquet(tmp_path / "c.parquet", ["c"], age=None)
    with pytest.raises(SourceError, match=r"^c\.parquet: column age is missing; the file has id"):
        opened(tmp_path).splits(10)


# ---------------------------------------------------------------- folders by column


def days(root: Path) -> None:
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        for region in ("eu", "__HIVE_DEFAULT_PARTITION__", "a%20b"):
            name = f"{day}/{region}"
            parquet(root / f"day={day}" / f"region={region}" / "part-0.parquet", [name])


def test_folders_a_filter_rules_out_are_not_even_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days(tmp_path)
    listed: list[str] = []
    real = BeneathFileSystem.ls

    def ls(self: Any, path: str, detail: bool = True, **more: Any) -> Any:
        listed.append(path)
        return real(self, path, detail=detail, **more)

    monkeypatch.setattr(BeneathFileSystem, "ls", ls)
    table = opened(tmp_path, day=["2026-01-02"], region=["eu", "a b"])
    assert keys(table, table.splits(10)) == ["2026-01-02/a%20b", "2026-01-02/eu"]
    assert not [path for path in listed if "2026-01-01" in path or "HIVE" in path]
    listed.clear()
    globbed = opened(f"file://{tmp_path}/day=*/region=eu/*.parquet", day=["2026-01-03"])
    assert keys(globbed, globbed.splits(10)) == ["2026-01-03/eu"]
    assert not [path for path in listed if "2026-01-01" in path]


def test_a_column_in_the_folders_names_is_an_input(tmp_path: Path) -> None:
    for age in ("7", "old"):
        parquet(tmp_path / f"age={age}" / "plan=a%2Fb" / "t.parquet", [age], age=None, plan=None)
    parquet(
        tmp_path / "age=8" / "plan=__HIVE_DEFAULT_PARTITION__" / "t.parquet",
        ["8"],
        age=None,
        plan=None,
    )
    table = opened(tmp_path)
    found, told = {}, []
    for split in table.splits(10):
        for chunk in table.read(split):
            records, rejects = Decoder(CONTRACT).decode(chunk.batch, chunk.rows)
            rows = zip(records.columns["age"], records.columns["plan"], strict=True)
            found |= dict(zip(records.keys, rows, strict=True))
            told += [str(reject) for reject in rejects]
    assert found == {"7": (7, "a/b"), "8": (8, "")}
    assert told == ["age: 'old' is not a whole number"]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"day": ["2030-01-01"]}, "no file that ends with .parquet where day = 2030-01-01"),
        ({"month": ["1"]}, "is in no folder month=VALUE, which the filter needs"),
    ],
)
def test_a_filter_that_leaves_nothing_is_named(
    tmp_path: Path, filters: dict[str, list[str]], told: str
) -> None:
    days(tmp_path)
    with pytest.raises(SourceError) as error:
        opened(tmp_path, **filters).splits(10)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("t/**/*.parquet", ["a", "h"]),
        ("t/*/*.parquet", ["h"]),
        ("t", ["a", "h"]),
        ("t/_temporary/0/*.parquet", ["tmp"]),
        ("t/_tem*/0/*.parquet", ["tmp"]),
    ],
)
def test_what_is_not_committed_is_hidden_unless_it_is_named(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    parquet(tmp_path / "t/part-0.parquet", ["a"])
    parquet(tmp_path / "t/_temporary/0/part-1.parquet", ["tmp"])
    parquet(tmp_path / "t/.staging/part-2.parquet", ["dot"])
    parquet(tmp_path / "t/_day=1/part-3.parquet", ["h"])
    for name in ("t/_SUCCESS", "t/.part-0.parquet.crc", "t/._part.parquet", "t/_x.parquet"):
        (tmp_path / name).write_text("no table")
    table = opened(f"file://{tmp_path}/{pattern}")
    assert sorted(keys(table, table.splits(10))) == found


def test_a_nullable_column_absent_in_older_files_is_null_there(tmp_path: Path) -> None:
    parquet(tmp_path / "t/a.parquet", ["old"], plan=None)
    parquet(tmp_path / "t/b.parquet", ["new"])
    table = opened(tmp_path / "t")
    plans = [c.batch.column("plan").to_pylist() for c in table.chunks()]
    assert plans == [[None], ["p"]]
    (tmp_path / "t/b.parquet").unlink()
    with pytest.raises(SourceError, match=r"a\.parquet: column plan is missing; the file has id"):
        opened(tmp_path / "t/a.parquet").splits(10)


def test_uuids_are_their_texts(tmp_path: Path) -> None:
    values = [uuid.UUID(int=n * 0x1234567890ABCDEF1234567) for n in range(1, 5)]
    raw: list[bytes | None] = [value.bytes for value in values]
    raw[2] = None
    column = pa.array(raw, pa.uuid())
    path = tmp_path / "t.parquet"
    plans = pa.array(["p"] * 4, pa.string_view())
    pq.write_table(pa.table({"id": column, "age": [1, 2, 3, 4], "plan": plans}), path)
    (chunk,) = opened(path).chunks()
    texts: list[str | None] = [str(value) for value in values]
    texts[2] = None
    assert chunk.batch.column("id").to_pylist() == texts
    assert plain_column(column[1:]).to_pylist() == texts[1:]
    assert str(chunk.batch.schema.field("plan").type) == "string"


# ---------------------------------------------------------------- JSON Lines


def lines(path: Path, *values: Any) -> Path:
    raw = [v.encode() if isinstance(v, str) else orjson.dumps(v) for v in values]
    text = b"\n".join(raw) + b"\n"
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


SHAPED = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [
            {"name": "age", "type": "int32"},
            {"name": "grid", "type": "float32", "shape": [2, 2]},
            {"name": "plan", "type": "string", "nullable": True},
        ],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)


def decoded(table: Any) -> tuple[dict[str, Any], dict[int, str]]:
    good, told = {}, {}
    for split in table.splits(0):
        for chunk in table.read(split):
            records, rejects = Decoder(SHAPED).decode(chunk.batch, chunk.rows)
            for at, key in enumerate(records.keys):
                columns = records.columns
                good[key] = (
                    int(records.rows[at]),
                    int(columns["age"][at]),
                    columns["grid"][at].tolist(),
                    columns["plan"][at],
                )
            told |= {reject.row: str(reject) for reject in (*chunk.rejects, *rejects)}
    return good, told


GRID = [[1, 2.5], [3, 4]]


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson.gz", "t.json"])
def test_a_poisoned_line_costs_its_row_and_is_named_by_its_number(
    tmp_path: Path, name: str
) -> None:
    path = lines(
        tmp_path / name,
        {"id": "a", "age": 1, "grid": GRID, "plan": "2026-01-01T00:00:00"},
        '{"id": "b", "age": 2, "grid": ',
        {"id": "c", "age": "3", "grid": GRID},
        "",
        {"id": "d", "age": 4.0, "grid": GRID, "unknown": {"x": [1]}},
        {"id": "e", "age": 1.5, "grid": GRID},
        {"id": "f", "age": True, "grid": GRID},
        {"id": "g", "age": 1, "grid": [[1, 2], [3]]},
        {"id": "h", "age": 1, "grid": "no list"},
        '["not", "an", "object"]',
        {"id": 7, "age": 1, "grid": GRID},
        {"age": 1, "grid": GRID},
        {"id": "z", "age": 9, "grid": GRID, "plan": None},
    )
    good, told = decoded(opened(path, "JSONLines", SHAPED))
    assert good == {
        "a": (0, 1, GRID, "2026-01-01T00:00:00"),
        "d": (4, 4, GRID, ""),
        "z": (12, 9, GRID, ""),
    }
    assert told[1] == "row: line 2: it is not JSON: unexpected end of data"
    assert told[2] == "age: '3' is not a whole number"
    assert told[9] == "row: line 10: it is not a JSON object"
    assert told[10] == "id: 7 is not text"
    assert told[11] == "id: missing"
    assert {row: text.partition(":")[0] for row, text in told.items()} == {
        1: "row",
        2: "age",
        5: "age",
        6: "age",
        7: "grid",
        8: "grid",
        9: "row",
        10: "id",
        11: "id",
    }


def test_lines_of_many_blocks_and_files_are_numbered_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_table, "BLOCK_BYTES", 300)
    expected, bad, at = {}, [], 0
    for file in range(2):
        values: list[Any] = []
        for row in range(100):
            if row % 17 == 3:
                bad.append(at)
                values.append("{broken")
            else:
                expected[f"k{at}"] = (at, row, GRID, "p" * (row % 50))
                values.append({"id": f"k{at}", "age": row, "grid": GRID, "plan": "p" * (row % 50)})
            at += 1
        lines(tmp_path / f"{file}.jsonl", *values)
    table = opened(tmp_path, "JSONLines", SHAPED)
    good, told = decoded_through(table)
    assert good == expected
    assert sorted(told) == bad


def decoded_through(table: Any) -> tuple[dict[str, Any], list[int]]:
    good, told = {}, []
    for chunk in table.chunks():
        records, rejects = Decoder(SHAPED).decode(chunk.batch, chunk.rows)
        for at, key in enumerate(records.keys):
            columns = records.columns
            good[key] = (
                int(records.rows[at]),
                int(columns["age"][at]),
                columns["grid"][at].tolist(),
                columns["plan"][at],
            )
        told += [reject.row for reject in (*chunk.rejects, *rejects)]
    return good, told


def test_lines_arrow_can_type_are_not_parsed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [{"id": f"k{n}", "age": n, "grid": GRID, "more": [n]} for n in range(100)]
    path = lines(tmp_path / "t.jsonl", *values)
    table = opened(path, "JSONLines", SHAPED)
    splits = table.splits(0)
    monkeypatch.setattr(json_table.JsonTable, "_slowly", lambda *_: pytest.fail("slow"))
    assert keys(table, splits) == [f"k{n}" for n in range(100)]


def test_a_column_no_line_has_is_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", {"id": "a", "grid": GRID, "year": 1})
    with pytest.raises(SourceError, match="column age is missing; the lines have id, grid, year"):
        opened(path, "JSONLines", SHAPED).splits(0)
