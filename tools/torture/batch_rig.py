"""The setup for chaos runs of batch workers: a table, a model, a store and a sink."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq

from fourways_api.audience import DEPLOYMENTS_KEY, EVERY_DEPLOYMENT
from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE
from fourways_runtime.io.store import RunStore, open_run_store

from .material import CONTRACT, model, table
from .witness import Outcome, Rows, Witness

NAMESPACE, DEPLOYMENT = "torture", "churn"
CHUNK_ROWS = 4096
_MEMORY = CHUNK_ROWS * 8 * (8 * 3 + 64)


class Rig:
    """Runs of one table to one store, and to a sink if one is named.

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
        (secret / DEPLOYMENTS_KEY).write_text(EVERY_DEPLOYMENT)
        (secret / "uri").write_text(store_uri)
        (folder / "uri").write_text(store_uri)
        (data / "model.onnx").write_bytes(model())
        pq.write_table(table(rows), data / "table.parquet", row_group_size=CHUNK_ROWS)
        # As in the image, which has no pandas: pyarrow would spend a second on importing it.
        (folder / "pandas.py").write_text("raise ImportError")
        self._store: RunStore | None = None
        self.witness = Witness(self, NAMESPACE, DEPLOYMENT)
        if sink == "table":
            with psycopg.connect(store_uri, autocommit=True) as connection:
                connection.execute("CREATE TABLE out (id text PRIMARY KEY, score real)")

    def close(self) -> None:
        """Close the store; the next query opens it again."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> Rows:
        """Query the store. Raises StoreUnavailable."""
        if self._store is None:
            self._store = open_run_store(self.store_uri)
        return self._store.database.rows(query, values)

    def start(self, run: str, index: int) -> subprocess.Popen[bytes]:
        """Start a worker."""
        return subprocess.Popen(
            [sys.executable, "-m", "fourways_runtime", "batch"],
            env={
                **os.environ,
                CONFIG_VARIABLE: json.dumps(self._config(index)),
                RUN_VARIABLE: run,
                "PYTHONPATH": str(self.folder),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def last_words(self, index: int) -> str:
        """Return a worker's final report."""
        try:
            return (self.folder / f"last-words-{index}").read_text()[:500]
        except OSError:
            return "no termination message"

    def outcome(self, run: str) -> Outcome:
        """Return a published run's predictions, sorted by key, and its rejects, by position."""
        return self.witness.outcome(run, self._elsewhere() if self.sink else None)

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
        sinks: dict[str, Any] = {
            "": {},
            "table": {"sink": {"table": {"database": {"secretName": "db"}, "table": "out"}}},
        }
        files = {"sink": {"files": {"uri": "pvc://data/out", "format": self.sink}}}
        return {
            "namespace": NAMESPACE,
            "name": DEPLOYMENT,
            "model": {"uri": "pvc://data/model.onnx", "version": "v1"},
            "contract": CONTRACT,
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
