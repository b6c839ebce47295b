"""The quality of answers to requests: over both stores, and under `fourways up` while it sleeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry

from fourways_cli.embedded.control import ask
from fourways_runtime.io.store import open_database
from fourways_runtime.io.store.past import past_batches
from fourways_runtime.v2.parts import ScoredPart
from fourways_runtime.v2.request import InferenceRequest
from fourways_runtime.workloads.serving.recording import AnswerRecorder
from tests.kit.hosts import Up
from tests.kit.serving_plane import configure
from tests.kit.waiting import until
from tools.kit.models import LINEAR, linear

pytestmark = pytest.mark.embedded

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
QUALITY = {
    "truth": {"uri": "pvc://data/truth.parquet"},
    "label": "happened",
    "time": "at",
    "output": "score",
    "metrics": ["MAE"],
    "interval": "1s",
}


def test_answers_are_kept_at_the_time_of_either_store(
    tmp_path: Path, uri: str, namespace: str
) -> None:
    config = configure(
        tmp_path, linear(), LINEAR, namespace=namespace, stored={"output": "score", "share": "100%"}
    )
    recorder = AnswerRecorder(config, lambda: open_database(uri), CollectorRegistry())
    for key, value in (("a", 1.5), ("b", 2.5), ("a", 3.5)):
        part = ScoredPart({"score": np.array([value], np.float32)}, 0, 1, {})
        recorder.note(InferenceRequest(1, None, None, False, [key], None, {}), part)
    recorder.flush()
    with closing(open_database(uri)) as store:
        first, second = past_batches(store, namespace, "churn", "score", EPOCH)
        assert (first.keys, first.values) == (["a", "b"], [1.5, 2.5])
        assert (second.keys, second.values) == (["a"], [3.5])
        assert first.at < second.at
        (written,) = (EPOCH + timedelta(microseconds=each.at) for each in (first,))
        assert abs(datetime.now(UTC) - written) < timedelta(minutes=2)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    data = tmp_path / "data"
    data.mkdir()
    (data / "m.onnx").write_bytes(linear())
    truth(data, [])
    with Up(tmp_path / "state", volumes={"data": data}) as host:
        yield host


def truth(folder: Path, rows: list[tuple[str, float, datetime]]) -> None:
    keys, labels, times = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table(
        {
            "id": pa.array(keys, pa.string()),
            "happened": pa.array(labels, pa.float64()),
            "at": pa.array(times, pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(table, folder / "new")
    (folder / "new").rename(folder / "truth.parquet")


def manifest(folder: Path) -> Path:
    document = {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m"},
        "spec": {
            "mode": "realtime",
            "model": {
                "uri": "pvc://data/m.onnx",
                "version": "1",
                "digestPolicy": "TrustOnFirstUse",
            },
            "contract": LINEAR,
            "realtime": {"minReplicas": 0, "scaleToZeroAfter": "1s", "wakeTimeout": "60s"},
            "quality": QUALITY,
        },
    }
    file = folder / "m.yaml"
    file.write_text(orjson.dumps(document).decode())  # YAML would read the tensor's name y as true
    return file


def infer(up: Up, keys: list[str], age: int) -> list[float]:
    ages, ones = [age] * len(keys), [1.0] * len(keys)
    tensors = [
        {"name": "id", "datatype": "BYTES", "shape": [len(keys)], "data": keys},
        {"name": "age", "datatype": "INT32", "shape": [len(keys)], "data": ages},
        {"name": "spend", "datatype": "FP32", "shape": [len(keys)], "data": ones},
        {"name": "rate", "datatype": "FP32", "shape": [len(keys)], "data": ones},
    ]
    url = f"{up.url}/v2/models/m/infer"
    answer = httpx.post(url, json={"inputs": tensors}, timeout=90, trust_env=False)
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["outputs"][0]["data"]
    return found


def status(up: Up) -> dict[str, Any]:
    (document,) = ask(up.state, {"do": "status"})["deployments"]
    found: dict[str, Any] = document["status"]
    return found


def sleeps(up: Up) -> bool:
    (found,) = [c for c in status(up)["conditions"] if c["type"] == "Ready"]
    return (found["status"], found["reason"]) == ("True", "Asleep")


def test_labels_are_compared_while_the_model_server_sleeps(up: Up, tmp_path: Path) -> None:
    """Each wake is another process: its answers join those of the ones before it, once each."""
    up.start(manifest(tmp_path))
    keys = [f"k{at}" for at in range(40)]

    def asleep() -> None:
        until(lambda: sleeps(up), lambda: str(status(up)), seconds=90, ignoring=(Exception,))

    def compared(labels: int, mae: float) -> None:
        def is_told() -> bool:
            found = status(up)["quality"]
            values = {each["name"]: each["value"] for each in found.get("metrics", ())}
            return bool(found["labels"] == labels and values == {"MAE": mae})

        until(is_told, lambda: str(status(up)), seconds=120, ignoring=(KeyError,))

    asleep()
    first = set(infer(up, keys, 10))
    asleep()
    between = datetime.now(UTC)
    second = set(infer(up, keys, 20))
    asleep()
    after = datetime.now(UTC)
    assert (first, second) == ({3.125}, {8.125})
    rows = [(key, 4.125, between) for key in keys]
    truth(tmp_path / "data", rows)
    compared(40, 1.0)
    rows += [(key, 11.125, after) for key in keys]
    truth(tmp_path / "data", [*rows[::-1], *rows])
    compared(80, 2.0)
    assert sleeps(up)
