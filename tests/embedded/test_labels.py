"""Labels from a file, in the modes that answer for themselves: model server and stream worker."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fourways_api import Contract, ModelReference
from tests.kit.edge_plane import MATRIX, WIDE, matrix
from tests.kit.serving_plane import configure as configure_server
from tests.kit.serving_plane import serving, tensor
from tests.kit.stores import ask
from tests.kit.stream_rig import PATIENCE, NatsServer, WorkerProcess, configure
from tests.kit.waiting import until

pytestmark = pytest.mark.embedded

LABELS = ["the first", "zweitens, ü", "third"]
ROWS = np.random.default_rng(5).normal(0, 1, (12, WIDE)).astype(np.float32)


def contract(uri: str) -> dict[str, Any]:
    raw = "\n".join(LABELS).encode()
    outputs = [{"name": "label", "type": "string", "tensor": "y", "reduce": "ArgMax"}]
    labels = {"uri": uri, "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}"}
    return {**MATRIX, "outputs": outputs, "labels": labels}


def expected() -> list[str]:
    answers = onnxruntime.InferenceSession(matrix()).run(None, {"x": ROWS})[0]
    return [LABELS[at] for at in answers.argmax(axis=1).tolist()]


async def test_a_model_server_answers_with_the_labels_of_the_file(tmp_path: Path) -> None:
    config = configure_server(tmp_path, matrix(), contract("pvc://data/labels.txt"))
    (tmp_path / "volumes" / "data" / "labels.txt").write_text("\n".join(LABELS))
    async with serving(config) as plane:
        asked = {"inputs": [tensor("x", "FP32", ROWS.reshape(-1).tolist(), list(ROWS.shape))]}
        answer = await plane.client.post("/v2/models/churn/infer", json=asked)
    (output,) = answer.json()["outputs"]
    assert output["data"] == expected()
    assert len(set(output["data"])) > 1


def test_a_stream_worker_stores_the_labels_of_the_file(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    nats, root = own_nats, tmp_path
    nats.make_stream("S", "s.a")
    source = {"nats": {"servers": nats.url, "stream": "S", "subject": "s.a"}}
    store = f"sqlite:///{root}/store.db"
    config = configure(root, store, source)
    (root / "model.onnx").write_bytes(matrix())
    (root / "labels.txt").write_text("\n".join(LABELS))
    model = ModelReference(uri=f"file://{root}/model.onnx", version="v1")
    asked = Contract.model_validate(contract(f"file://{root}/labels.txt"))
    worker = WorkerProcess(root, config.model_copy(update={"model": model, "contract": asked}))
    nats.publish(
        ("s.a", json.dumps({"id": f"{at:02}", "x": row.tolist()}).encode(), None)
        for at, row in enumerate(ROWS)
    )

    def labels() -> list[str]:
        ((table,),) = ask(store, "SELECT table_name FROM {0}streams", "n")
        query = f"SELECT label FROM {{0}}{table} ORDER BY id"  # noqa: S608  (a name of ours)
        return [label for (label,) in ask(store, query, "n")]

    until(
        lambda: labels() == expected(),
        "the labels are stored",
        seconds=30 * PATIENCE,
        ignoring=Exception,
    )
    assert worker.stop() == 0
