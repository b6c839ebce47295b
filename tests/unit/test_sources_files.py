"""Splits, folders by column, JSON Lines and Delta Lake; files that vanish or change meanwhile."""

from __future__ import annotations

import gzip
import shutil
import uuid
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_runtime.errors import SourceError
from fourways_runtime.io.fetch.beneath_fs import BeneathFileSystem
from fourways_runtime.io.sources import json_table, open_table
from fourways_runtime.io.sources.arrow_types import plain_column
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.splits import Newer, Split

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [
            {"name": "age", "type": "int32"},
            {"name": "plan", "type": "string", "nullable": True},
        ],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)


def opened(
    uri: str | Path,
    form: str = "Parquet",
    contract: Contract = CONTRACT,
    more: tuple[str, ...] = (),
    **filters: list[str],
) -> Any:
    text = uri if isinstance(uri, str) else f"file://{uri}"
    chosen = [{"column": name, "values": values} for name, values in filters.items()]
    source = BatchSource.model_validate({"uri": text, "format": form, "filter": chosen})
    return open_table(source, contract, policy=FetchPolicy(), paths=Paths(), more=more)


def parquet(path: Path, keys: list[str], size: int = 1000, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"id": keys, "age": list(range(len(keys))), "plan": ["p"] * len(keys)} | more
    table = pa.table({name: column for name, column in columns.items() if column is not None})
    pq.write_table(table, path, row_group_size=size)
    return path


def keys(table: Any, splits: list[Split], newer: Newer | None = None) -> list[str]:
    return [
        key
        for split in splits
        for chunk in table.read(split, newer)
        for key in chunk.batch.column("id").to_pylist()
    ]


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
    with pytest.raises(SourceError, match=r"t\.\w+: is gone; it was there when the run began"):
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
    with pytest.raises(SourceError, match="column at is missing, which tells what is new"):
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
        ({"month": ["1"]}, "is in no folder month=VALUE, by which the filter chooses"),
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


# ---------------------------------------------------------------- Delta Lake

deltalake = pytest.importorskip("deltalake")


def delta(root: Path, keys: list[str], mode: str = "append", **how: Any) -> Path:
    columns = {"id": keys, "age": list(range(len(keys))), "plan": ["p"] * len(keys)}
    columns |= how.pop("columns", {})
    deltalake.write_deltalake(str(root), pa.table(columns), mode=mode, **how)
    return root


def test_a_delta_table_is_the_files_of_its_newest_version(tmp_path: Path) -> None:
    for run in range(12):
        delta(tmp_path / "t", [f"k{run}"])
    deltalake.DeltaTable(str(tmp_path / "t")).create_checkpoint()
    delta(tmp_path / "t", ["last"])
    table = opened(tmp_path / "t", "Delta")
    splits = table.splits(10)
    assert sorted(keys(table, splits)) == sorted(["last", *(f"k{n}" for n in range(12))])
    assert opened(tmp_path / "t", "Delta").splits(10) == splits
    # What is committed since is the next run's; what was removed is still read.
    delta(tmp_path / "t", ["new"], mode="overwrite")
    assert len(keys(opened(tmp_path / "t", "Delta"), splits)) == 13
    again = opened(tmp_path / "t", "Delta")
    assert keys(again, again.splits(10)) == ["new"]
    deltalake.DeltaTable(str(tmp_path / "t")).vacuum(
        0, dry_run=False, enforce_retention_duration=False
    )
    with pytest.raises(SourceError, match="is gone; it was there when the run began"):
        keys(opened(tmp_path / "t", "Delta"), splits)


def test_partitions_of_a_delta_table_are_chosen_and_are_columns(tmp_path: Path) -> None:
    days = {"day": ["x", "y z", None], "id": ["a", "b", "c"], "age": [1, 2, 3], "plan": ["p"] * 3}
    deltalake.write_deltalake(str(tmp_path / "t"), pa.table(days), partition_by=["day"])
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "day", "type": "string", "nullable": True}],
            "outputs": [{"name": "y", "type": "float32"}],
        }
    )
    table = opened(tmp_path / "t", "Delta", contract, day=["y z", "x"])
    rows = [
        row for split in table.splits(9) for c in table.read(split) for row in c.batch.to_pylist()
    ]
    assert sorted(rows, key=lambda row: row["id"]) == [
        {"id": "a", "day": "x"},
        {"id": "b", "day": "y z"},
    ]
    with pytest.raises(SourceError, match="not partitioned by age"):
        opened(tmp_path / "t", "Delta", contract, age=["1"]).splits(9)
    with pytest.raises(SourceError, match="no rows where day is as asked"):
        opened(tmp_path / "t", "Delta", contract, day=["never"]).splits(9)


def test_a_column_added_later_is_null_in_files_from_before(tmp_path: Path) -> None:
    deltalake.write_deltalake(str(tmp_path / "t"), pa.table({"id": ["a"], "age": [1]}))
    delta(tmp_path / "t", ["b"], schema_mode="merge")
    table = opened(tmp_path / "t", "Delta")
    found = [
        row for split in table.splits(9) for c in table.read(split) for row in c.batch.to_pylist()
    ]
    assert {row["id"]: row["plan"] for row in found} == {"a": None, "b": "p"}


@pytest.mark.parametrize(
    ("protocol", "configuration", "told"),
    [
        (
            {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": ["variantType"],
                "writerFeatures": ["variantType"],
            },
            {},
            "variantType, which is not supported",
        ),
        (
            {"minReaderVersion": 2, "minWriterVersion": 5},
            {"delta.columnMapping.mode": "name"},
            "column mapping, which is not supported",
        ),
    ],
)
def test_what_a_reader_must_know_and_we_do_not_is_refused(
    tmp_path: Path, protocol: dict[str, Any], configuration: dict[str, str], told: str
) -> None:
    delta(tmp_path / "t", ["a"])
    rewritten(tmp_path / "t", protocol, configuration)
    with pytest.raises(SourceError, match=told):
        opened(tmp_path / "t", "Delta").splits(9)


def rewritten(
    root: Path, protocol: dict[str, Any], configuration: dict[str, str], **add: Any
) -> None:
    log = root / "_delta_log" / "00000000000000000000.json"
    actions = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    for action in actions:
        if "protocol" in action:
            action["protocol"] = protocol
        if "metaData" in action:
            action["metaData"]["configuration"] = configuration
            if "delta.columnMapping.mode" in configuration:
                schema = orjson.loads(action["metaData"]["schemaString"])
                for at, field in enumerate(schema["fields"]):
                    named = {"physicalName": f"col-{at}", "id": at + 1}
                    field["metadata"] = {f"delta.columnMapping.{k}": v for k, v in named.items()}
                action["metaData"]["schemaString"] = orjson.dumps(schema).decode()
        if "add" in action:
            action["add"] |= add
    log.write_bytes(b"\n".join(map(orjson.dumps, actions)))


def test_deletion_vectors_are_refused_and_only_where_there_are_any(tmp_path: Path) -> None:
    features = ["deletionVectors"]
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": features,
        "writerFeatures": features,
    }
    delta(tmp_path / "t", ["a"])
    rewritten(tmp_path / "t", protocol, {"delta.enableDeletionVectors": "true"})
    table = opened(tmp_path / "t", "Delta")
    assert keys(table, table.splits(9)) == ["a"]
    vector = {
        "storageType": "u",
        "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA",
        "offset": 1,
        "sizeInBytes": 36,
        "cardinality": 1,
    }
    rewritten(tmp_path / "t", protocol, {}, deletionVector=vector)
    with pytest.raises(SourceError, match="deletion vectors, which are not supported; rewrite"):
        opened(tmp_path / "t", "Delta").splits(9)


def test_files_elsewhere_and_links_are_refused(tmp_path: Path) -> None:
    delta(tmp_path / "t", ["a"])
    outside = parquet(tmp_path / "outside.parquet", ["secret"])
    shutil.copytree(tmp_path / "t", tmp_path / "u")
    for place, path in (("t", f"file://{outside}"), ("u", "../outside.parquet")):
        rewritten(tmp_path / place, {"minReaderVersion": 1, "minWriterVersion": 2}, {}, path=path)
        with pytest.raises(SourceError, match="files are elsewhere"):
            opened(tmp_path / place, "Delta").splits(9)
    with pytest.raises(SourceError, match="there is no Delta table"):
        opened(tmp_path / "nothing", "Delta").splits(9)
