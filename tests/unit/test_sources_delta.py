"""Delta tables as sources: their newest version, partitions, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import local
from typing import Any

import orjson
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem

from fourways_api import Contract
from fourways_runtime.errors import SourceError
from fourways_runtime.io.fetch.location import Location
from fourways_runtime.io.sources import delta as delta_module
from tests.kit.table_files import keys, opened, parquet

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
    with pytest.raises(SourceError, match="no longer exists; it existed when the run started"):
        keys(opened(tmp_path / "t", "Delta"), splits)


def test_the_files_of_a_table_in_a_bucket_are_listed_and_not_asked_for_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ["1"] * 6 + ["2"] * 6
    for at, day in enumerate(days):
        delta(tmp_path / "t", [f"k{at}"], columns={"day": [day]}, partition_by=["day"])
    asked: list[str] = []
    listing = local()  # folders are listed on several threads

    class Bucket(LocalFileSystem):  # type: ignore[misc]
        cachable = False

        def info(self, path: str, **how: Any) -> Any:
            if not getattr(listing, "on", False):
                asked.append(str(path))
            return super().info(path, **how)

        def ls(self, path: str, detail: bool = False, **how: Any) -> Any:
            asked.append("listed")
            listing.on = True
            try:
                return super().ls(path, detail, **how)
            finally:
                listing.on = False

    opened_bucket = Location.parse("gs://bucket/t"), Bucket(), str(tmp_path / "t")
    monkeypatch.setattr(delta_module, "open_backend", lambda *_, **__: opened_bucket)
    table = opened("gs://bucket/t", "Delta")
    splits = table.splits(10)
    assert sorted(asked) == ["listed"] * 3, "the log and two folders"
    assert len(keys(table, splits)) == len(days)
    Path(splits[0].detail["path"]).unlink()
    with pytest.raises(SourceError, match="no longer exists; it existed when the run started"):
        keys(opened("gs://bucket/t", "Delta"), splits[:1])


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
    with pytest.raises(SourceError, match="no rows that match the filter by day"):
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
        with pytest.raises(SourceError, match="files are outside its folder"):
            opened(tmp_path / place, "Delta").splits(9)
    with pytest.raises(SourceError, match="there is no Delta table"):
        opened(tmp_path / "nothing", "Delta").splits(9)
