"""A sink of each kind, written to and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psycopg
import pyarrow.parquet as pq
import pytest

from fourways_api import Contract, FetchPolicy, Paths
from fourways_api.modes import Sink as SinkSpec
from fourways_runtime.io.sinks import open_sink
from fourways_runtime.io.sinks.base import PredictionSink
from fourways_runtime.scoring.columns import Predictions
from tests.kit.secret_files import secret_folder

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "age", "type": "int32"}],
        "outputs": [
            {"name": "score", "type": "float32"},
            {"name": "label", "type": "string"},
            {"name": "parts", "type": "float64", "shape": [2]},
        ],
    }
)


def predictions(keys: list[str], score: float = 0.5, first: int = 0) -> Predictions:
    count = len(keys)
    columns = {
        "score": np.full(count, score, np.float32),
        "label": np.array([f"l{key}" for key in keys], object),
        "parts": np.arange(2 * count, dtype=np.float64).reshape(count, 2),
    }
    return Predictions(np.array(keys, object), np.arange(first, first + count), columns)


class Rig:
    """A place predictions go to, and what its readers see."""

    def __init__(self, kind: str, folder: Path, database: str) -> None:
        self.kind = kind
        self.folder = folder / "out"
        self.database = database
        self.paths = Paths(secrets_root=str(folder / "secrets"))
        secret_folder(folder / "secrets" / "db", uri=database)
        if kind in ("Replace", "Upsert"):
            self.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            self.sql(
                "CREATE TABLE t (id text PRIMARY KEY, s real, label text, parts float8[], "
                "more int DEFAULT 7)"
            )

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def open(self, run: str = "r1", **more: Any) -> PredictionSink:
        files = {"files": {"uri": f"file://{self.folder}", "format": self.kind}}
        table = {
            "table": {
                "database": {"secretName": "db"},
                "table": "t",
                "write": self.kind,
                "columns": [{"output": "score", "column": "s"}],
            }
        }
        spec = SinkSpec.model_validate(table if self.kind in ("Replace", "Upsert") else files)
        sink = open_sink(spec, CONTRACT, run, policy=FetchPolicy(), paths=self.paths, **more)
        sink.begin()
        return sink

    def seen(self) -> dict[str, float]:
        """Return key and score of each row a reader sees."""
        if self.kind in ("Replace", "Upsert"):
            rows = self.sql("SELECT id, s, label, parts FROM t")
            assert all(row[2] == f"l{row[0]}" and len(row[3]) == 2 for row in rows)
            return {row[0]: row[1] for row in rows}
        if self.kind == "Delta":
            deltalake = pytest.importorskip("deltalake")
            if not deltalake.DeltaTable.is_deltatable(str(self.folder)):
                return {}
            table = deltalake.DeltaTable(str(self.folder)).to_pyarrow_table()
        else:
            pointer = self.folder / "_latest"
            if not pointer.exists():
                return {}
            told = orjson.loads(pointer.read_bytes())
            table = pq.read_table(self.folder / told["path"])
            assert told["rows"] == table.num_rows
        rows = table.to_pylist()
        assert len({row["id"] for row in rows}) == len(rows)
        assert all(row["label"] == f"l{row['id']}" and len(row["parts"]) == 2 for row in rows)
        return {row["id"]: row["score"] for row in rows}


def write(sink: PredictionSink, number: int, keys: list[str], attempt: int = 0, **how: Any) -> str:
    chunk = sink.chunk(number, attempt)
    half = len(keys) // 2
    chunk.write(predictions(keys[:half], **how))
    chunk.write(predictions(keys[half:], first=half, **how))
    return chunk.finish()
