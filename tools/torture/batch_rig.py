"""What batch workers are tortured with: a table, a model, a store and where predictions go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE
from fourways_runtime.store import Writer, open_writer
from fourways_runtime.store.database import quoted, table

NAMESPACE, DEPLOYMENT = "torture", "churn"
CHUNK_ROWS = 4096
_MEMORY = CHUNK_ROWS * 8 * (8 * 3 + 64)
Rows = list[tuple[Any, ...]]


class Broken(Exception):
    """What must hold does not."""


class Rig:
    """Runs of one table to one store, and to a sink where one is named.

    ``sink`` is Parquet, Delta, or table: a table of its own in the store's database.
    """

    def __init__(self, folder: Path, store_uri: str, *, sink: str = "", rows: int) -> None:
        self.folder = folder
        self.store_uri = store_uri
        self.sink = sink
        data = folder / "volumes" / "data"
        data.mkdir(parents=True, exist_ok=True)
        secret = folder / "secrets" / "db"
        secret.mkdir(parents=True, exist_ok=True)
        (secret / "uri").write_text(store_uri)
        (folder / "uri").write_text(store_uri)
        (data / "model.onnx").write_bytes(_model())
        pq.write_table(_table(rows), data / "table.parquet", row_group_size=CHUNK_ROWS)
        # As in the image, which has no pandas: pyarrow would spend a second on importing it.
        (folder / "pandas.py").write_text("raise ImportError")
        self._store: Writer | None = None
        if sink == "table":
            with psycopg.connect(store_uri, autocommit=True) as connection:
                connection.execute("CREATE TABLE out (id text PRIMARY KEY, y real)")

    def close(self) -> None:
        """Let go of the store; it is opened again when it is asked."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def ask(self, query: str, *values: Any) -> Rows:
        """Ask the store. Raises StoreUnavailable."""
        if self._store is None:
            self._store = open_writer(self.store_uri)
        return self._store.database.rows(query, values)

    def start(self, run: str, index: int) -> subprocess.Popen[bytes]:
        """Start a worker."""
        return subprocess.Popen(
            [sys.executable, "-m", "fourways_runtime", "batch"],
            env={
                **os.environ, CONFIG_VARIABLE: json.dumps(self._config(index)), RUN_VARIABLE: run,
                "PYTHONPATH": str(self.folder),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def last_words(self, index: int) -> str:
        """Return what a worker said at its end."""
        try:
            return (self.folder / f"last-words-{index}").read_text()[:500]
        except OSError:
            return "no last words"

    def outcome(self, run: str) -> tuple[Rows, Rows]:
        """Return a published run's predictions, sorted by key, and its rejects, by position."""
        ((view, run_id, state, rows),) = self.ask(
            "SELECT table_name, id, state, rows FROM @runs WHERE namespace = ? AND "
            "deployment = ? AND name = ?", NAMESPACE, DEPLOYMENT, run,
        )  # fmt: skip
        if state != "published":
            raise Broken(f"run {run} is {state}")
        found = self._elsewhere() if self.sink else self.ask(
            f"SELECT * FROM {table(view)} ORDER BY {quoted('id')}"  # noqa: S608
        )  # fmt: skip
        if len(found) != rows:
            raise Broken(f"run {run} says {rows} rows, and has {len(found)}")
        rejects = self.ask(
            "SELECT position, key, field, reason FROM @rejects WHERE run_id = ? "
            "ORDER BY position, reason", run_id,
        )  # fmt: skip
        return found, rejects

    def _elsewhere(self) -> Rows:
        if self.sink == "table":
            with closing(psycopg.connect(self.store_uri)) as connection:
                return connection.execute('SELECT * FROM out ORDER BY id COLLATE "C"').fetchall()
        out = self.folder / "volumes" / "data" / "out"
        if self.sink == "Delta":
            from deltalake import DeltaTable

            found: Any = DeltaTable(str(out)).to_pyarrow_table()
        else:
            found = pq.read_table(out / json.loads((out / "_latest").read_bytes())["path"])
        return [tuple(row.values()) for row in found.sort_by("id").to_pylist()]

    def _config(self, index: int) -> dict[str, Any]:
        sinks: dict[str, Any] = {"": {}, "table": {
            "sink": {"table": {"database": {"secretName": "db"}, "table": "out"}}
        }}  # fmt: skip
        files = {"sink": {"files": {"uri": "pvc://data/out", "format": self.sink}}}
        return {
            "namespace": NAMESPACE,
            "name": DEPLOYMENT,
            "model": {"uri": "pvc://data/model.onnx", "version": "v1"},
            "contract": {
                "entityKey": {"name": "id"},
                "inputs": [
                    {"name": "age", "type": "float32", "range": {"min": 0}},
                    {"name": "spend", "type": "float32"},
                ],
                "outputs": [{"name": "y", "type": "float32"}],
            },
            "batch": {
                "schedule": "@daily",
                "source": {"uri": "pvc://data/table.parquet"},
                "maxRejects": "10%",
                "keepRuns": 100,
                **sinks.get(self.sink, files),
            },
            "memoryBytes": _MEMORY,
            "paths": {
                "storeUriFile": str(self.folder / "uri"),
                "volumesRoot": str(self.folder / "volumes"),
                "secretsRoot": str(self.folder / "secrets"),
                "cacheDir": str(self.folder / f"cache-{index}"),
                "terminationLog": str(self.folder / f"last-words-{index}"),
            },
        }


def _model() -> bytes:
    """Return a model that takes a while: a wide network of no meaning."""
    chance = np.random.default_rng(0)
    wide = chance.normal(size=(2, 512)).astype(np.float32)
    deep = (chance.normal(size=(512, 512)) / 23).astype(np.float32)
    out = (chance.normal(size=(512, 1)) / 23).astype(np.float32)
    weights = [
        numpy_helper.from_array(w, name) for w, name in ((wide, "a"), (deep, "b"), (out, "c"))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Tanh", ["h"], ["i"]),
        helper.make_node("MatMul", ["i", "b"], ["j"]),
        helper.make_node("Tanh", ["j"], ["k"]),
        helper.make_node("MatMul", ["k", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def _table(rows: int) -> pa.Table:
    """Return a table in which 1 row in 97 is refused, and 1 key in 101 occurs again."""
    number = np.arange(rows)
    age = (number % 90).astype(np.float32)
    age[number % 97 == 0] = -1
    keys = np.where(number % 101 == 0, number // 2, number)
    return pa.table(
        {"id": [f"c{key}" for key in keys], "age": age, "spend": (number % 1000).astype(np.float32)}
    )
