"""A gateway as a process, and runs for it to answer from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fourways_api import Contract, GatewayConfig, Paths
from fourways_cli.embedded.ports import free_port
from fourways_runtime.io.store import Run, open_run_store
from fourways_runtime.scoring.columns import Predictions
from tests.kit.stores import publish as publish_run

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "customer", "type": "int64"},
        "inputs": [{"name": "x", "type": "float32"}],
        "outputs": [
            {"name": "score", "type": "float32"},
            {"name": "label", "type": "string"},
            {"name": "box", "type": "float64", "shape": [2, 2]},
            {"name": "big", "type": "uint64"},
        ],
    }
)


def publish(uri: str, name: str, rows: int = 3) -> None:
    run = Run("shop", "churn", name, "1", "sha256:" + "b" * 64, CONTRACT, datetime.now(UTC))
    columns = {
        "score": np.arange(rows, dtype=np.float32) / 2,
        "label": np.array([f"l{i}" for i in range(rows)], dtype=object),
        "box": np.arange(rows * 4, dtype=np.float64).reshape(rows, 2, 2),
        "big": np.full(rows, 2**64 - 1, dtype=np.uint64),
    }
    store = open_run_store(uri)
    try:
        publish_run(
            store, run, Predictions(*(np.arange(rows, dtype=np.int64),) * 2, columns), keep=2
        )
    finally:
        store.close()


class Process:
    """A running gateway; what it logged is known once it has ended."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = GatewayConfig(
            namespace="shop",
            host="127.0.0.1",
            port=self.port,
            paths=Paths(store_uri_file=str(folder / "uri")),
        )
        self.process = start(config.model_dump_json(by_alias=True))
        self.log: list[dict[str, object]] = []
        lines = self.process.stderr
        assert lines is not None
        for line in lines:
            self.log.append(json.loads(line))
            if self.log[-1]["message"] == "serving":
                break

    def end(self) -> int:
        _, rest = self.process.communicate(timeout=20)
        self.log += map(json.loads, rest.splitlines())
        return self.process.returncode


def start(config: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fourways_runtime", "gateway"],
        env={**os.environ, "FOURWAYS_CONFIG": config},
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def gateway(folder: Path) -> Iterator[Process]:
    running = Process(folder)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
