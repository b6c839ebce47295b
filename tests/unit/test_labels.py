"""Labels from a file: what is read, and what is said of a file that does not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
import pytest
from prometheus_client import CollectorRegistry

from fourways_api import Contract
from fourways_api.runtime_config import EdgeConfig, StreamConfig
from fourways_runtime.bundle_layout import CONTRACT_FILE
from fourways_runtime.errors import ContractMismatch, DigestMismatch, NotPublishable
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.labels import read_labels, with_labels
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.outputs import bind_outputs
from fourways_runtime.workloads.batch import BatchRun
from fourways_runtime.workloads.edge import build
from fourways_runtime.workloads.prepare import prepare
from fourways_runtime.workloads.streaming.shell import Shell
from tests.kit.batch_world import World
from tests.kit.edge_plane import MATRIX, WIDE, edge_config, matrix, matrix_golden
from tests.kit.serving_plane import configure, serving, tensor
from tests.kit.stores import ask

OUTPUTS = [
    {"name": "label", "type": "string", "tensor": "y", "reduce": "ArgMax"},
    {"name": "best", "type": "float32", "tensor": "y", "reduce": "Max"},
]


def written(folder: Path, raw: bytes) -> Path:
    file = folder / "labels.txt"
    file.write_bytes(raw)
    return file


@pytest.mark.parametrize(
    ("raw", "labels"),
    [
        (b"tench\ngoldfish\n", ("tench", "goldfish")),
        (b"\xef\xbb\xbfa b\r\n\xc3\xbc\r\ncrane\r\ncrane", ("a b", "\u00fc", "crane", "crane")),
        (b"a\x0bb\nc", ("a\x0bb", "c")),
    ],
)
def test_a_line_is_a_label(tmp_path: Path, raw: bytes, labels: tuple[str, ...]) -> None:
    assert read_labels(written(tmp_path, raw)) == labels


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "line 1 is empty"),
        (b"a\n\nc\n", "line 2 is empty"),
        (b"a\n" + b"b" * 129, "line 2 is longer than 128 characters"),
        (b"a\n" * 10_001, "more than 10,000 lines"),
        (b"a\xff", "byte 1 is not UTF-8"),
        (b"a\0", "line 1 contains a NUL character"),
    ],
)
def test_what_is_no_label_is_named_with_its_line(tmp_path: Path, raw: bytes, told: str) -> None:
    with pytest.raises(ContractMismatch, match=told):
        read_labels(written(tmp_path, raw))


def test_labels_are_for_texts_without_categories() -> None:
    outputs = [*OUTPUTS, {"name": "sure", "type": "string", "categories": ["no", "yes"]}]
    found = with_labels(Contract.model_validate(MATRIX | {"outputs": outputs}), ("a", "b"))
    assert [field.categories for field in found.outputs] == [("a", "b"), None, ("no", "yes")]


@pytest.mark.parametrize("count", [999, 1001])
def test_there_is_one_label_for_each_class(count: int) -> None:
    contract = Contract.model_validate(MATRIX | {"outputs": OUTPUTS})
    labelled = with_labels(contract, tuple(map(str, range(count))))
    told = rf"output label: {count:,} labels for the 1,000 classes of tensor y"
    with pytest.raises(ContractMismatch, match=told):
        bind_outputs(labelled.outputs, [Tensor("y", "float32", (None, 1000))])


def world_of(root: Path, labels: bytes, digest: str = "") -> tuple[World, dict[str, Any]]:
    world = World(root, f"sqlite:///{root}/store.db", "shop")
    world.file("model.onnx").write_bytes(matrix())
    world.file("labels.txt").write_bytes(labels)
    digest = digest or f"sha256:{hashlib.sha256(labels).hexdigest()}"
    told = {"uri": "pvc://data/labels.txt", "digest": digest}
    return world, {**MATRIX, "outputs": OUTPUTS, "labels": told}


def test_a_run_stores_the_labels_of_the_file(tmp_path: Path) -> None:
    world, contract = world_of(tmp_path, b"first\nsecond\nthird\n")
    rows = np.random.default_rng(3).normal(0, 1, (50, WIDE)).astype(np.float32)
    world.table(id=[f"c{at}" for at in range(50)], x=list(rows))
    config = world.config(contract=contract)
    prepared = prepare(config)
    assert prepared.pipeline.contract.outputs[0].categories == ("first", "second", "third")
    assert BatchRun(config, "r1").execute().rows == 50
    ((table,),) = ask(world.uri, "SELECT table_name FROM {0}runs", "shop")
    query = f"SELECT label FROM {{0}}{table}"  # noqa: S608  (a name of ours)
    found = {label for (label,) in ask(world.uri, query, "shop")}
    assert found <= {"first", "second", "third"}
    assert len(found) > 1


def test_a_file_with_another_digest_is_refused(tmp_path: Path) -> None:
    world, contract = world_of(tmp_path, b"first\nsecond\nthird\n", f"sha256:{'0' * 64}")
    with pytest.raises(DigestMismatch):
        prepare(world.config(contract=contract))


async def test_a_model_server_answers_with_the_labels_of_the_file(tmp_path: Path) -> None:
    _, contract = world_of(tmp_path, b"first\nsecond\nthird\n")
    rows = np.random.default_rng(3).normal(0, 1, (12, WIDE)).astype(np.float32)
    async with serving(configure(tmp_path, matrix(), contract)) as plane:
        asked = {"inputs": [tensor("x", "FP32", rows.reshape(-1).tolist(), list(rows.shape))]}
        answer = await plane.client.post("/v2/models/churn/infer", json=asked)
    assert answer.json()["outputs"][0]["data"] == expected(rows)


def test_a_stream_worker_scores_events_with_the_labels_of_the_file(tmp_path: Path) -> None:
    world, contract = world_of(tmp_path, b"first\nsecond\nthird\n")
    rows = np.random.default_rng(3).normal(0, 1, (12, WIDE)).astype(np.float32)
    source = {"nats": {"servers": "nats://none", "stream": "S", "subject": "s"}}
    document = world.config(contract=contract).to_json() | {"streaming": {"source": source}}
    del document["batch"]
    config = StreamConfig.model_validate(document)
    scorer = Shell(config, CollectorRegistry()).scorer(prepare(config))
    bodies = [orjson.dumps({"id": str(at), "x": row.tolist()}) for at, row in enumerate(rows)]
    count = len(rows)
    events = Events([0] * count, range(count), [None] * count, bodies, lambda at: ())
    scored = scorer.score(events)
    assert scored.refusals == {}
    assert list(scored.predictions.columns["label"]) == expected(rows)


def test_a_bundle_contains_the_labels_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, schema = world_of(tmp_path, b"a\nb\nc")
    raw = matrix()
    files: list[dict[str, bytes]] = []

    def caught(config: EdgeConfig, model: Path, folder: Path, size: int) -> Any:
        files.append({each.name: each.read_bytes() for each in folder.iterdir()})
        raise NotPublishable("enough")

    monkeypatch.setattr(build, "_measured", caught)
    config = edge_config(tmp_path, raw, schema, matrix_golden(raw))
    with pytest.raises(NotPublishable, match="enough"):
        build.build(config)
    contract = Contract.model_validate_json(files[0][CONTRACT_FILE])
    assert contract.outputs[0].categories == ("a", "b", "c")
    assert contract.labels is None


def expected(rows: Array) -> list[str]:
    answers = onnxruntime.InferenceSession(matrix()).run(None, {"x": rows})[0]
    return [("first", "second", "third")[at] for at in answers.argmax(axis=1).tolist()]
