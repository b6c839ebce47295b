"""Tables in files, and their keys as a source reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_runtime.io.sources import open_table
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
