"""A model, a table and a store for batch runs, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from fourways_api import RunReport, RuntimeConfig
from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE
from fourways_runtime.io.store import PublishedRun
from fourways_runtime.workloads import batch
from tests.kit.runtime_process import command, import_path
from tests.kit.stores import look

AGES = [0, 30, 60, 90]


def doubling() -> bytes:
    """A model with y = 2 * (age + spend), of shape (N, 1), and p = [1 - y, y]."""
    weights = numpy_helper.from_array(np.array([[2.0], [2.0]], np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())


@dataclass
class World:
    """A claim with a model and a table, and a store; and the configuration that names them."""

    root: Path
    uri: str
    namespace: str

    def __post_init__(self) -> None:
        (self.root / "volumes" / "data").mkdir(parents=True)
        (self.root / "uri").write_text(self.uri)
        self.file("model.onnx").write_bytes(doubling())
        self.table(id=[f"c{n}" for n in range(4)], age=AGES, spend=[0.5] * 4)

    def file(self, name: str) -> Path:
        return self.root / "volumes" / "data" / name

    def table(self, row_group_size: int | None = None, **columns: Any) -> None:
        file = self.file("table.parquet")
        pq.write_table(pa.table(columns), file, row_group_size=row_group_size)

    def config(self, **changes: Any) -> RuntimeConfig:
        """Return the configuration; ``batch__max_rejects="1"`` changes a part of it."""
        document: dict[str, Any] = {
            "namespace": self.namespace,
            "name": "churn",
            "model": {"uri": "pvc://data/model.onnx", "version": "v1"},
            "contract": {
                "entityKey": {"name": "id"},
                "inputs": [
                    {"name": "age", "type": "int32", "range": {"min": 0, "max": 120}},
                    {"name": "spend", "type": "float32"},
                ],
                "outputs": [{"name": "y", "type": "float64"}],
            },
            "batch": {"schedule": "@daily", "source": {"uri": "pvc://data/table.parquet"}},
            "paths": {
                "storeUriFile": str(self.root / "uri"),
                "volumesRoot": str(self.root / "volumes"),
                "cacheDir": str(self.root / "cache"),
                "terminationLog": str(self.root / "last-words"),
            },
        }
        for path, value in changes.items():
            *parents, name = path.split("__")
            inner = document
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[name] = value
        return RuntimeConfig.model_validate(document)

    def run(self, name: str = "r1", **changes: Any) -> PublishedRun:
        return batch.BatchRun(self.config(**changes), name).execute()

    async def rows(self, *keys: str) -> Any:
        found = await look(self.uri, self.namespace, list(keys))
        return None if found is None else found.rows

    def process(self, config: RuntimeConfig | str, **environment: str) -> Process:
        text = config if isinstance(config, str) else json.dumps(config.to_json())
        environment["PYTHONPATH"] = import_path(self.root)
        started = subprocess.Popen(
            command("batch"),
            env={**os.environ, CONFIG_VARIABLE: text, RUN_VARIABLE: "r1", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        return Process(started, self.root / "last-words")


@dataclass
class Process:
    started: subprocess.Popen[str]
    last_words: Path

    def until(self, stage: str) -> None:
        assert self.started.stderr is not None
        for line in self.started.stderr:
            if json.loads(line)["message"] == stage:
                return
        raise AssertionError(f"never {stage}")

    def end(self) -> tuple[int, RunReport, list[dict[str, Any]]]:
        _, log = self.started.communicate(timeout=30)
        report = RunReport.model_validate_json(self.last_words.read_text())
        return self.started.returncode, report, [json.loads(line) for line in log.splitlines()]
