"""Tables: which files, which columns, in what order, and what is said when one is not there."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import BatchSource, FetchPolicy, Paths
from fourways_runtime.errors import FetchFailed, FetchRefused, SourceError
from fourways_runtime.io.sources import BATCH_ROWS, open_table
from fourways_runtime.io.sources.watermarks import older
from fourways_runtime.scoring.splits import Newer
from tests.kit.contract_tables import CONTRACT, GOOD, parquet, rows_of, table
from tests.kit.fetch_servers import ranged, serving, status
from tests.kit.table_files import keys, opened


def test_only_the_columns_of_the_contract_are_read(tmp_path: Path) -> None:
    assert rows_of(parquet(tmp_path / "t.parquet")) == [
        (0, {"id": "a", "age": 1, "plan": "p"}),
        (1, {"id": "b", "age": 2, "plan": "q"}),
    ]


@pytest.mark.parametrize("where", ["", "/", "/*.parquet", "/part-?.parquet"])
def test_a_folder_or_a_glob_is_one_table_in_the_order_of_its_names(
    tmp_path: Path, where: str
) -> None:
    for number in (2, 0, 1):
        columns = {"id": [f"k{number}"], "age": [number], "plan": ["p"]}
        parquet(tmp_path / f"part-{number}.parquet", columns)
    if not where.endswith("parquet"):
        (tmp_path / "_SUCCESS").touch()
        (tmp_path / ".part-0.parquet.crc").touch()
        (tmp_path / "README.md").write_text("not a table")
        parquet(tmp_path / "_temporary" / "part-9.parquet")
    opened = table(f"file://{tmp_path}{where}")
    assert opened.total_rows == 3
    assert [(row, value["id"]) for row, value in rows_of(f"file://{tmp_path}{where}")] == [
        (0, "k0"),
        (1, "k1"),
        (2, "k2"),
    ]


def test_a_glob_reads_the_folders_that_spark_names_like_files(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet/part-0.parquet", "old/c.parquet"):
        parquet(tmp_path / name, {"id": [name], "age": [1], "plan": ["p"]})
    found = [value["id"] for _, value in rows_of(f"file://{tmp_path}/*.parquet")]
    assert found == ["a.parquet", "b.parquet/part-0.parquet"]


def test_an_ending_in_capitals_is_the_same_ending(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,age,plan\na,1,p\n")
    (tmp_path / "B.CSV").write_text("id,age,plan\nb,2,p\n")
    (tmp_path / "c.Csv.GZ").write_bytes(gzip.compress(b"id,age,plan\nc,3,p\n"))
    assert sorted(value["id"] for _, value in rows_of(tmp_path, "CSV")) == [b"a", b"b", b"c"]


def test_batches_stay_small_and_rows_are_numbered_through(tmp_path: Path) -> None:
    count = 2 * BATCH_ROWS + 5
    columns = {"id": [str(n) for n in range(count)], "age": [1] * count, "plan": ["p"] * count}
    opened = table(parquet(tmp_path / "t.parquet", columns, row_group_size=BATCH_ROWS + 3))
    chunks = list(opened.chunks())
    assert opened.total_rows == count
    assert max(chunk.batch.num_rows for chunk in chunks) <= BATCH_ROWS
    assert [row for chunk in chunks for row in chunk.rows] == list(range(count))
    assert all(
        str(row) == key.as_py()
        for chunk in chunks
        for row, key in zip(chunk.rows[:3], chunk.batch.column("id")[:3], strict=True)
    )


def test_a_claim_is_read_beneath_its_mount_and_left_by_no_link(tmp_path: Path) -> None:
    parquet(tmp_path / "volumes" / "data" / "t.parquet")
    secret = parquet(tmp_path / "elsewhere" / "t.parquet")
    root = str(tmp_path / "volumes")
    assert len(rows_of("pvc://data/t.parquet", volumes_root=root)) == 2
    (tmp_path / "volumes" / "data" / "link.parquet").symlink_to(secret)
    assert len(rows_of("pvc://data/*.parquet", volumes_root=root)) == 2
    for uri in ("pvc://data/link.parquet", "pvc://data/../../elsewhere/t.parquet"):
        with pytest.raises(FetchRefused):
            rows_of(uri, volumes_root=root)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"id": ["a"], "age": [1]}, "t.parquet: column plan is missing; the file has id, age"),
        (
            {"id": ["a"], "age": ["1"], "plan": ["p"]},
            "column age is string, the contract says int32",
        ),
        ({"id": [1], "age": [1], "plan": ["p"]}, "column id is int64, the contract says string"),
    ],
)
def test_a_missing_or_retyped_column_is_named(
    tmp_path: Path, columns: dict[str, Any], told: str
) -> None:
    with pytest.raises(SourceError) as error:
        table(parquet(tmp_path / "t.parquet", columns))
    assert told in str(error.value)


def test_the_last_file_of_many_is_checked_before_the_first_is_read(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    parquet(tmp_path / "b.parquet", {"id": ["a"]})
    with pytest.raises(SourceError, match=r"^b\.parquet: column age is missing"):
        table(tmp_path)


@pytest.mark.parametrize("form", ["Parquet", "CSV"])
def test_what_is_not_there_is_named(tmp_path: Path, form: str) -> None:
    with pytest.raises(SourceError, match="no such file"):
        table(tmp_path / "gone", form)
    with pytest.raises(SourceError, match="no file has this name"):
        table(f"file://{tmp_path}/*.gone", form)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"no file that ends with \.\w+; there is notes\.txt"):
        table(tmp_path, form)


def test_a_file_that_is_damaged_or_none_is_named_and_not_retried(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(SourceError, match=r"t\.parquet"):
        table(tmp_path / "t.parquet")
    count = 50_000
    columns = {"id": [str(n) for n in range(count)], "age": [1] * count, "plan": ["p"] * count}
    file = parquet(tmp_path / "u.parquet", columns, row_group_size=10_000, compression="zstd")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 2000] = b"\xff" * 2000
    file.write_bytes(raw)
    with pytest.raises(SourceError, match=r"u\.parquet"):
        rows_of(file)


def test_a_table_over_http_is_read_by_ranges_and_a_failing_server_is_worth_another_try() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table(GOOD), buffer)
    with serving(ranged(buffer.getvalue())) as server:
        assert len(rows_of(f"{server.url}/t.parquet")) == 2
    with serving(status(404)) as server, pytest.raises(SourceError):
        rows_of(f"{server.url}/t.parquet")
    source = BatchSource.model_validate({"uri": "http://127.0.0.1:1/t.parquet"})
    policy = FetchPolicy(timeout_seconds=0.1)
    with pytest.raises(FetchFailed):
        open_table(source, CONTRACT, policy=policy, paths=Paths()).splits(1)


# ---------------------------------------------------------------- JSON Lines


@pytest.mark.parametrize("before", ["", " ", "\r\n", "\ufeff", '{"id":"b","age":2,"plan":"p"}\n'])
@pytest.mark.parametrize("end", ["", "\n", '\n{"id":"a","age":1,"plan":"p"}\n', "{}\n"])
def test_a_line_that_is_null_is_a_bad_row_wherever_a_block_begins(
    tmp_path: Path, before: str, end: str
) -> None:
    """Arrow ends the process over it if it is the first line that it is given."""
    path = tmp_path / "t.jsonl"
    path.write_text(f"{before}null{end}", encoding="utf-8")
    told = [text for _, text in rows_of(path, "JSONLines") if isinstance(text, str)]
    assert len(told) == 1
    assert "it is not" in told[0]


@pytest.mark.parametrize(
    "line",
    [
        '{"id":"x","age":1}{"id":"y","age":2}',
        '{"id":"x","age":1} , {"id":"y","age":2}',
        '{"id":"x","age":1}\r{"id":"y","age":2}\r{"id":"z","age":3}\r',
    ],
)
def test_a_line_of_several_objects_swallows_rows_and_is_no_reject(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"id":"a","age":1,"plan":""}}\n{line}\n{{"id":"b","age":2}}\n', newline="")
    with pytest.raises(SourceError, match="line 2 holds more than one object"):
        rows_of(path, "JSONLines")
    path.write_text('{"id":"a","age":1,"plan":""}\n{"id":"x","age":1} junk {"id":"y"}\n')
    assert [text for _, text in rows_of(path, "JSONLines") if isinstance(text, str)]


@pytest.mark.parametrize("body", ['[{"id":"a"}]', '\ufeff [\n{"id":"a"},\n{"id":"b"}\n]\n'])
def test_a_json_array_is_not_json_lines(tmp_path: Path, body: str) -> None:
    (tmp_path / "t.jsonl").write_text(body)
    with pytest.raises(SourceError, match="is a JSON array; write one object per line"):
        list(table(tmp_path / "t.jsonl", "JSONLines").chunks())


@pytest.mark.parametrize("name", ["b.csv.gz", "b.csv"])
def test_a_fault_of_reading_names_the_file_and_is_raised_where_the_rows_are_used(
    tmp_path: Path, name: str
) -> None:
    """Not on Arrow's threads: one of them would be lost with each such fault."""
    rows = "id,age,plan\n" + "".join(f"k{n},{n % 90},p\n" for n in range(1000))
    raw = gzip.compress(rows.encode())[:-20] if name.endswith(".gz") else rows.encode() + b"\0\0\n"
    (tmp_path / "a.csv").write_text("id,age,plan\na,1,p\n")
    (tmp_path / name).write_bytes(raw)
    for _ in range(20):
        with pytest.raises(SourceError, match=name):
            list(table(tmp_path, "CSV").chunks())


def test_a_watermark_that_only_uint64_holds_is_compared_exactly(tmp_path: Path) -> None:
    marks = [2**63 + 4, 2**63 + 5, 2**63 + 6]
    file = tmp_path / "t.parquet"
    columns: dict[str, Any] = {"id": ["a", "b", "c"], "age": [1, 2, 3], "plan": ["p"] * 3}
    columns["u"] = pa.array(marks, pa.uint64())
    pq.write_table(pa.table(columns), file)
    opened_table = opened(file, more=("u",))
    found = keys(opened_table, opened_table.splits(10), Newer("u", marks[1]))
    assert found == ["b", "c"]
    assert older(pa.array(marks, pa.uint64()), marks[1]).tolist() == [True, False, False]
