"""A contract of two inputs, tables of it, and what a table gives when it is read."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_api.base import SKIP_RULES
from fourways_runtime.io.sources import BATCH_ROWS, open_table
from fourways_runtime.scoring.decode import Decoder

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "age", "type": "int32"}, {"name": "plan", "type": "string"}],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)
GOOD = {"id": ["a", "b"], "age": [1, 2], "plan": ["p", "q"], "unread": [0.5, 0.5]}


def parquet(path: Path, columns: dict[str, Any] | None = None, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(GOOD if columns is None else columns), path, **how)
    return path


def table(uri: str | Path, form: str = "Parquet", **paths: str) -> Any:
    text = uri if isinstance(uri, str) else f"file://{uri}"
    source = BatchSource.model_validate({"uri": text, "format": form}, context=SKIP_RULES)
    policy = FetchPolicy(timeout_seconds=5.0)
    opened = open_table(source, CONTRACT, policy=policy, paths=Paths(**paths))
    opened.splits(BATCH_ROWS)  # where the whole table is looked at
    return opened


def rows_of(uri: str | Path, form: str = "Parquet", **paths: str) -> list[tuple[Any, ...]]:
    """Return (position, row) of each row, and (position, None) of each that was no row."""
    found: list[tuple[Any, ...]] = []
    for chunk in table(uri, form, **paths).chunks():
        found += zip(chunk.rows.tolist(), chunk.batch.to_pylist(), strict=True)
        found += [(reject.row, str(reject)) for reject in chunk.rejects]
    return sorted(found, key=lambda row: int(row[0]))


def csv(tmp_path: Path, text: str, name: str = "t.csv") -> Path:
    raw = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    return tmp_path / name


def decoded(path: Path) -> tuple[dict[int, Any], list[str]]:
    decoder, good, told = Decoder(CONTRACT), {}, []
    for chunk in table(path, "CSV").chunks():
        records, rejects = decoder.decode(chunk.batch, chunk.rows)
        good |= {
            int(row): (key, int(age), plan)
            for row, key, age, plan in zip(
                records.rows,
                records.keys,
                records.columns["age"],
                records.columns["plan"],
                strict=True,
            )
        }
        told += [f"{reject.row}: {reject}" for reject in (*chunk.rejects, *rejects)]
    return good, sorted(told, key=lambda line: int(line.partition(":")[0]))
