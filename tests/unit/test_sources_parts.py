"""What is read of a table: the newer rows of text files, ranges of lines, batches that fit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_runtime.errors import SourceError
from fourways_runtime.io.sources import BATCH_ROWS, json_table, open_table
from fourways_runtime.io.sources.watermarks import highest
from fourways_runtime.scoring.splits import Newer

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "age", "type": "int32"}],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)


def opened(path: Path, form: str, contract: Contract = CONTRACT, **how: Any) -> Any:
    source = BatchSource.model_validate({"uri": f"file://{path}", "format": form})
    return open_table(source, contract, policy=FetchPolicy(), paths=Paths(), **how)


def written(folder: Path, form: str, cells: list[Any], name: str = "t") -> Path:
    """Write rows k0, k1, … with a value each in the column ``at``."""
    if form == "CSV":
        path = folder / f"{name}.csv"
        text = "".join(f"k{n},{n},{'' if cell is None else cell}\n" for n, cell in enumerate(cells))
        path.write_text("id,age,at\n" + text)
    else:
        path = folder / f"{name}.jsonl"
        rows = [{"id": f"k{n}", "age": n, "at": cell} for n, cell in enumerate(cells)]
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def read(table: Any, since: Any = None) -> tuple[list[str], Any, list[str]]:
    """Return keys, the highest value, and what was refused."""
    found: list[str] = []
    tops, told = [], []
    newer = None if since is None else Newer("at", since)
    for split in table.splits(1000):
        for chunk in table.read(split, newer):
            found += [
                k.decode() if isinstance(k, bytes) else k
                for k in chunk.batch.column("id").to_pylist()
            ]
            assert len(chunk.rows) == chunk.batch.num_rows == len(chunk.watermark)
            tops.append(highest(chunk.watermark))
            told += [f"{reject.row}: {reject}" for reject in chunk.rejects]
    return found, max((top for top in tops if top is not None), default=None), told


@pytest.mark.parametrize("form", ["CSV", "JSONLines"])
@pytest.mark.parametrize(
    ("cells", "top", "newer"),
    [
        (["9", "10", "", "100"], 100, ["k1", "k2", "k3"]),
        (["9.5", "10", " 10.5 ", "-3"], 10.5, ["k2"]),
        (["2026-03-09", "2026-03-10", "2025-12-31", ""], "2026-03-10T00:00:00", ["k1", "k3"]),
        (["2026-03-09 23:59:59", "2026-03-10T00:00:00.5"], "2026-03-10T00:00:00.500000", ["k1"]),
        (
            ["2026-03-10T00:30:00+02:00", "2026-03-09T23:00:00Z"],
            "2026-03-09T23:00:00+00:00",
            ["k1"],
        ),
        (["v9", "v10", "w"], "w", ["k2"]),
    ],
    ids=["whole", "decimal", "date", "time", "zoned", "text"],
)
def test_numbers_and_times_compare_as_such(
    tmp_path: Path, form: str, cells: list[str], top: Any, newer: list[str]
) -> None:
    """Each case would come out otherwise if compared as text."""
    table = opened(written(tmp_path, form, cells), form, more=("at",))
    found, highest_seen, told = read(table)
    assert (found, highest_seen, told) == ([f"k{n}" for n in range(len(cells))], top, [])
    since = {100: 10, "w": "v91"}.get(top, top)
    assert read(table, since)[0] == newer


def test_json_numbers_are_numbers_whatever_block_they_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_table, "BLOCK_BYTES", 64)
    path = written(tmp_path, "JSONLines", [1, 2, 3, 1.5, None, 2.5, 12])
    table = opened(path, "JSONLines", more=("at",))
    assert read(table) == ([f"k{n}" for n in range(7)], 12, [])
    assert read(table, 2.5)[0] == ["k2", "k4", "k5", "k6"]


@pytest.mark.parametrize("form", ["CSV", "JSONLines"])
def test_a_value_of_another_kind_costs_its_row(tmp_path: Path, form: str) -> None:
    path = written(tmp_path, form, ["1"] * 500)
    with path.open("a") as file:
        file.write("x,1,soon\n" if form == "CSV" else '{"id": "x", "age": 1, "at": "soon"}\n')
        file.write("z,1,2.5\n" if form == "CSV" else '{"id": "z", "age": 1, "at": "2.5"}\n')
    table = opened(path, form, more=("at",))
    assert read(table, 2)[0] == ["z"]
    found, top, told = read(table)
    assert (len(found), top) == (501, 2.5)
    assert told == ["500: at: 'soon' is not a number"]


def test_files_that_differ_and_a_kind_that_changed_are_named(tmp_path: Path) -> None:
    written(tmp_path, "CSV", ["1", "2"], "a")
    other = written(tmp_path, "CSV", ["2026-01-01"], "b")
    with pytest.raises(SourceError, match=r"column at, .*, is a number in a\.csv and a time in b"):
        opened(tmp_path, "CSV", more=("at",)).splits(0)
    other.unlink()
    with pytest.raises(
        SourceError, match="is a number, but the previous run ended at '2026-01-01'"
    ):
        read(opened(tmp_path, "CSV", more=("at",)), "2026-01-01")


def test_a_time_of_nanoseconds_is_a_little_lower_than_it_is() -> None:
    moment = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    assert highest(moment) == "2023-11-14T22:13:20.123456"


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
def test_lines_are_read_once_wherever_a_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    chance = random.Random(step)
    count = 60
    texts = []
    for n in range(count):
        note = "\\n" * chance.randrange(4) + "ü" * chance.randrange(30)
        texts.append(f'{{"id": "k{n}", "age": {n}, "note": "{note}"}}')
        texts += [""] * (chance.random() < 0.1)
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(texts) + "\n" * (step % 2))
    monkeypatch.setattr(json_table, "BLOCK_BYTES", step)
    table = opened(path, "JSONLines")
    splits = table.splits(1)
    assert len(splits) > 10 or step == 1000
    again = opened(path, "JSONLines")
    found = [
        (int(row), key)
        for split in splits
        for chunk in again.read(split)
        for row, key in zip(chunk.rows, chunk.batch.column("id").to_pylist(), strict=True)
    ]
    assert [key for _, key in found] == [f"k{n}" for n in range(count)]
    assert sorted(found) == found
    assert len({row for row, _ in found}) == count


def test_a_line_of_a_part_is_named_by_its_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": "k0", "age": 0}\n' * 9 + "{broken\n")
    monkeypatch.setattr(json_table, "BLOCK_BYTES", 100)
    table = opened(path, "JSONLines")
    splits = table.splits(2)
    told = [str(r) for split in splits for chunk in table.read(split) for r in chunk.rejects]
    assert told == [
        "row: line 1 from byte 200 on: it is not JSON: unexpected character, expected a string key"
    ]


def test_a_compressed_file_is_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr(json_table, "BLOCK_BYTES", 64)
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "k", "age": 1}\n' * 100))
    assert len(opened(path, "JSONLines").splits(1)) == 1


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("form", ["Parquet", "CSV", "JSONLines"])
def test_wide_rows_are_handed_on_a_few_at_a_time(tmp_path: Path, form: str) -> None:
    wide = Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "image", "type": "float32", "shape": [1000]}],
            "outputs": [{"name": "y", "type": "float32"}],
        }
    )
    count = 300
    images = np.zeros((count, 1000), np.float32).tolist()
    path = tmp_path / "t"
    if form == "Parquet":
        pq.write_table(pa.table({"id": [f"k{n}" for n in range(count)], "image": images}), path)
    elif form == "CSV":
        path.write_text("id,image\n" + f'k,"{images[0]}"\n' * count)
    else:
        path.write_bytes((orjson.dumps({"id": "k", "image": images[0]}) + b"\n") * count)
    for room, most in ((10**6, 124), (10**9, count), (1, 1)):
        table = opened(path, form, wide, batch_bytes=room)
        sizes = [c.batch.num_rows for split in table.splits(BATCH_ROWS) for c in table.read(split)]
        assert sum(sizes) == count
        assert max(sizes) <= most


def test_long_texts_are_handed_on_a_few_at_a_time(tmp_path: Path) -> None:
    words = Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "text", "type": "string"}],
            "outputs": [{"name": "y", "type": "float32"}],
        }
    )
    chance = np.random.default_rng(0)
    texts = [chance.bytes(5000).hex() for _ in range(200)]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [f"k{n}" for n in range(200)], "text": texts}), path)
    table = opened(path, "Parquet", words, batch_bytes=10**5)
    (split,) = table.splits(1000)
    assert max(chunk.batch.num_rows for chunk in table.read(split)) <= 10
