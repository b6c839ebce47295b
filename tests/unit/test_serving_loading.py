"""How a model is brought to answer, and inputs of one type that are judged as one matrix."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from onnx import helper
from prometheus_client import CollectorRegistry

from fourways_api import Contract
from fourways_api.worker_faults import FAULTS_PATH
from fourways_http import Request, Response
from fourways_runtime.errors import ModelNotLoadable
from fourways_runtime.model_watch import WATCH
from fourways_runtime.scoring import model as models
from fourways_runtime.v2 import app
from fourways_runtime.v2.app import ModelServer
from fourways_runtime.workloads import prepare
from fourways_runtime.workloads.serving.loading import example, load_model
from tests.kit.serving_plane import configure, serving, tensor
from tools.kit.models import FLOAT, LINEAR, WEIGHTS, linear, onnx_bytes


def scores(answer: Any) -> list[float]:
    assert answer.status_code == 200, answer.text
    return [float(np.float32(value)) for value in answer.json()["outputs"][0]["data"]]


def expected(records: Any) -> list[float]:
    return [float(value) for value in (records @ WEIGHTS).reshape(-1)]


# ---------------------------------------------------------------- all inputs alike

FLOATS: dict[str, Any] = {
    **LINEAR,
    "inputs": [
        {"name": "a", "type": "float32", "range": {"min": 0.1}},
        {"name": "b", "type": "float32", "nullable": True},
        {"name": "c", "type": "float32", "range": {"max": 5}},
    ],
    "outputs": [{"name": "score", "type": "float32", "tensor": "y", "range": {"max": 100}}],
}


async def test_inputs_of_one_type_are_judged_as_one_by_one(tmp_path: Path) -> None:
    async with serving(configure(tmp_path, linear(), FLOATS)) as plane:
        assert plane.batcher._scorer._wide is not None
        rows = np.array([[0.1, 2, 5], [3, -4, 5]], np.float32)
        together = tensor("input", "FP32", rows.tolist(), [2, 3])
        apart = [tensor(name, "FP32", rows[:, at].tolist()) for at, name in enumerate("abc")]
        assert scores(await plane.infer(together)) == expected(rows)
        assert scores(await plane.infer(*apart)) == expected(rows)
        for data, told in (
            ([1, 2, 3, 0.05, 2, 3], "a: 0.05 is below 0.1 (row 1)"),
            ([1, 2, 6, 1, 2, 3], "c: 6 is above 5 (row 0)"),
            ([1, 2, 3, None, 2, 3], "a: missing (row 1)"),
            ([1, None, 3, 1, 2, 3], "score: the model answered NaN (row 0)"),
            ([1, -60, 3, 1, 2, 3], "score: 120.875 is above 100 (row 0)"),
        ):
            answer = await plane.infer(tensor("input", "FP64", data, [2, 3]))
            status = 500 if told.startswith("score") else 400  # whose fault it is
            assert (answer.status_code, answer.json()["error"]) == (status, told)


# ---------------------------------------------------------------- loading


class Slow:
    """A model that takes its time."""

    inputs = (models.Tensor("x", "float32", (None, 3)),)
    outputs = (models.Tensor("y", "float32", (None, 1)),)

    def predict(self, tensors: Any) -> dict[str, Any]:
        time.sleep(0.002)
        return {"y": tensors["x"][:, :1]}


def test_a_slow_model_leaves_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path, linear(), LINEAR)
    measured = load_model(config).warm_up
    assert [rows for rows, _ in measured[:3]] == [1, 2, 4]
    monkeypatch.setattr(prepare, "load", lambda *args, **kwargs: Slow())
    (slow,) = load_model(config).warm_up
    assert slow[0] == 1
    assert slow[1] >= 0.002


def test_a_model_that_answers_no_record_of_the_contract_is_not_served(tmp_path: Path) -> None:
    broken = onnx_bytes(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        [("i", 7, ["N"])],
        [("y", FLOAT, ["N"])],
        [("table", np.array([10, 20], np.float32))],
    )
    contract = {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "i", "type": "int64", "range": {"min": 50}}],
        "outputs": [{"name": "y", "type": "float32"}],
    }
    with pytest.raises(ModelNotLoadable, match="fails on a record that the contract allows"):
        load_model(configure(tmp_path, broken, contract))


def test_made_up_records_keep_the_contract() -> None:
    fields = Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [
                {"name": "a", "type": "int8", "range": {"min": 2.5}},
                {"name": "b", "type": "float32", "range": {"max": -1.5}, "shape": [2]},
                {"name": "c", "type": "string", "categories": ["x"]},
                {"name": "d", "type": "int8", "range": {"max": -1.5}},
                {"name": "e", "type": "bool"},
            ],
            "outputs": [{"name": "y", "type": "float32"}],
        }
    ).inputs
    assert [example(field).tolist() for field in fields] == [3, [-1.5, -1.5], "x", -2, False]


def test_a_model_that_loads_for_long_is_no_model_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file may take minutes to load; the stage has a limit of its own."""
    monkeypatch.setattr(app, "STUCK_SECONDS", -1)
    config = configure(tmp_path, linear(), LINEAR).model_copy(update={"timeout_seconds": -1.0})
    server = ModelServer(config, CollectorRegistry(), lambda: False)
    asked = Request(b"GET", FAULTS_PATH.encode(), [], b"")

    def faults() -> list[str]:
        answer = server.router()(asked)
        assert isinstance(answer, Response)
        return [fault["reason"] for fault in orjson.loads(answer.body)["faults"]]

    with WATCH.call(seconds=300):
        assert faults() == []
    with WATCH.call(seconds=-1):
        assert faults() == ["ModelHangs"]
