"""Sections of Parquet files: rows whose bytes are those of the run before are known by a digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_runtime.errors import SourceError
from fourways_runtime.io.sources import open_table

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [
            {"name": "age", "type": "int32"},
            {"name": "spend", "type": "float32", "shape": [2]},
        ],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)
ROWS = 40
Columns = dict[str, Any]


def columns() -> Columns:
    return {
        "id": [f"c{n:03}" for n in range(ROWS)],
        "age": pa.array(range(ROWS), pa.int32()),
        "spend": pa.array([[0.5, n] for n in range(ROWS)], pa.list_(pa.float32())),
        "comment": ["nobody reads this"] * ROWS,
    }


def opened(path: Path) -> Any:
    source = BatchSource.model_validate({"uri": f"file://{path}"})
    return open_table(source, CONTRACT, policy=FetchPolicy(), paths=Paths())


def digests(path: Path, found: Columns, rows: int = 10, **how: Any) -> list[str | None]:
    """Write a table in row groups of ``rows``; return the digests of all sections in order."""
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(found), path, row_group_size=rows, **how)
    table = opened(path)
    return [s.digest for split in table.splits(25) for s in table.sections(split)]


def changed(name: str, at: int, value: Any) -> Columns:
    found = columns()
    cells = found[name] if isinstance(found[name], list) else found[name].to_pylist()
    cells[at] = value
    kind = None if isinstance(found[name], list) else found[name].type
    return {**found, name: pa.array(cells, kind)}


def test_sections_are_the_row_groups_of_a_split_in_order(tmp_path: Path) -> None:
    digests(tmp_path / "t.parquet", columns())
    table = opened(tmp_path / "t.parquet")
    found = [s for split in table.splits(25) for s in table.sections(split)]
    assert [(s.split.number, s.split.start, s.split.rows) for s in found] == [
        (0, 0, 10),
        (0, 10, 10),
        (1, 20, 10),
        (1, 30, 10),
    ]
    keys, rows = [], []
    for section in found:
        for chunk in table.read(section.split):
            keys += chunk.batch.column("id").to_pylist()
            rows += chunk.rows.tolist()
    assert keys == columns()["id"]
    assert rows == list(range(ROWS))


@pytest.mark.parametrize("how", [{}, {"use_dictionary": False}, {"compression": "zstd"}])
def test_the_same_rows_have_the_same_digest_wherever_they_stand(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    before = digests(tmp_path / "a.parquet", columns(), **how)
    assert len(set(before)) == 4
    assert None not in before
    assert digests(tmp_path / "b.parquet", columns(), **how) == before
    moved = {
        name: pa.concat_arrays([pa.array(c)[10:], pa.array(c)[:10]])
        for name, c in columns().items()
    }
    assert digests(tmp_path / "c.parquet", moved, **how) == [*before[1:], before[0]]


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [("id", 0, "new"), ("age", 9, 1000), ("age", 5, None), ("spend", 3, [0.5, 3.5])],
)
@pytest.mark.parametrize("how", [{}, {"use_dictionary": False}])
def test_a_changed_value_changes_the_digest_of_its_section_alone(
    tmp_path: Path, name: str, at: int, value: Any, how: dict[str, Any]
) -> None:
    before = digests(tmp_path / "a.parquet", columns(), **how)
    after = digests(tmp_path / "a.parquet", changed(name, at, value), **how)
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_columns_nobody_reads_do_not_count(tmp_path: Path) -> None:
    before = digests(tmp_path / "a.parquet", columns())
    assert digests(tmp_path / "b.parquet", changed("comment", 3, "new")) == before
    without = {name: column for name, column in columns().items() if name != "comment"}
    assert digests(tmp_path / "c.parquet", without) == before


def test_the_same_bytes_of_another_type_are_others(tmp_path: Path) -> None:
    before = digests(tmp_path / "a.parquet", columns())
    other = {**columns(), "age": pa.array(range(ROWS), pa.date32())}
    pq.write_table(pa.table(other), tmp_path / "a.parquet", row_group_size=10)
    table = opened(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="age"):
        table.splits(25)
    wide = {**columns(), "age": pa.array(range(ROWS), pa.uint32())}
    after = digests(tmp_path / "a.parquet", wide)
    assert not set(before) & set(after)


def test_the_value_of_a_folder_counts(tmp_path: Path) -> None:
    found = {name: column for name, column in columns().items() if name != "age"}
    before = digests(tmp_path / "age=1" / "t.parquet", found)
    assert not set(before) & set(digests(tmp_path / "age=2" / "t.parquet", found))


def test_a_file_that_has_changed_is_told(tmp_path: Path) -> None:
    digests(tmp_path / "t.parquet", columns())
    table = opened(tmp_path / "t.parquet")
    split = table.splits(25)[0]
    pq.write_table(pa.table(changed("age", 0, 7)), tmp_path / "t.parquet", row_group_size=20)
    with pytest.raises(SourceError, match=r"t\.parquet: changed while it was read"):
        list(table.sections(split))


@pytest.mark.parametrize("form", ["CSV", "JSONLines"])
def test_text_is_one_section_without_a_digest(tmp_path: Path, form: str) -> None:
    path = tmp_path / "t"
    path.write_text(
        'id,age,spend\na,1,"[1, 2]"\n'
        if form == "CSV"
        else '{"id": "a", "age": 1, "spend": [1, 2]}\n'
    )
    source = BatchSource.model_validate({"uri": f"file://{path}", "format": form})
    table = open_table(source, CONTRACT, policy=FetchPolicy(), paths=Paths())
    (split,) = table.splits(1000)
    (section,) = table.sections(split)
    assert (section.split, section.digest) == (split, None)
