"""Outputs with a dimension of any size: answered with their real shape, and never stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from fourways_api import Contract
from fourways_runtime.errors import ContractMismatch
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.outputs import bind_outputs
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.ragged import column
from fourways_runtime.scoring.single import RecordScorer
from tests.kit.models import Function
from tests.kit.serving_plane import configure, serving, tensor
from tools.kit.models import FLOAT, onnx_bytes

CONTRACT: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": "x", "type": "float32", "shape": [-1]}],
    "outputs": [
        {"name": "y", "type": "float32", "shape": [-1]},
        {"name": "pairs", "type": "float32", "shape": [-1, 2]},
        {"name": "best", "type": "string", "shape": [-1], "tensor": "pairs", "reduce": "ArgMax",
         "categories": ["minus", "plus"]},
        {"name": "sum", "type": "float32"},
    ],
}  # fmt: skip


def doubled() -> bytes:
    """y = 2 x, pairs of (-x, x), and the sum of x, for x of any size."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["y"]),
        helper.make_node("Unsqueeze", ["x", "last"], ["column"]),
        helper.make_node("Mul", ["column", "signs"], ["pairs"]),
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0),
    ]
    constants = [
        ("two", np.array(2, np.float32)),
        ("last", np.array([2], np.int64)),
        ("signs", np.array([[[-1, 1]]], np.float32)),
        ("axis", np.array([1], np.int64)),
    ]
    outputs = [
        ("y", FLOAT, ["N", "L"]), ("pairs", FLOAT, ["N", "L", 2]), ("sum", FLOAT, ["N"]),
    ]  # fmt: skip
    return onnx_bytes(nodes, [("x", FLOAT, ["N", "L"])], outputs, constants)


@pytest.mark.parametrize("binary", [False, True])
async def test_a_request_is_answered_with_the_sizes_of_its_own(
    tmp_path: Path, binary: bool
) -> None:
    async with serving(configure(tmp_path, doubled(), CONTRACT)) as plane:
        for sizes in ([2, 3], [1, 5], [3, 1]):
            x = np.arange(np.prod(sizes), dtype=np.float32).reshape(sizes) - 1
            more = {"parameters": {"binary_data_output": True}} if binary else {}
            answer = await plane.infer(tensor("x", "FP32", x.reshape(-1).tolist(), sizes), **more)
            assert answer.status_code == 200, answer.text
            found = read(answer, binary)
            np.testing.assert_array_equal(found["y"], 2 * x)
            np.testing.assert_array_equal(found["pairs"], np.stack([-x, x], -1))
            assert found["best"].tolist() == np.where(x > 0, "plus", "minus").tolist()
            np.testing.assert_array_equal(found["sum"], x.sum(1))
        described = (await plane.client.get("/v2/models/churn")).json()["outputs"]
        assert [each["shape"] for each in described] == [[-1, -1], [-1, -1, 2], [-1, -1], [-1]]
        rows = {"instances": [[1, 2], [3, 4]]}
        first = (await plane.client.post("/v1/models/churn:predict", json=rows)).json()
        assert first["predictions"][1]["pairs"] == [[-3, 3], [-4, 4]]


def read(answer: Any, binary: bool) -> dict[str, Any]:
    if not binary:
        return {t["name"]: np.reshape(t["data"], t["shape"]) for t in answer.json()["outputs"]}
    length = int(answer.headers["inference-header-content-length"])
    at, found = length, {}
    for told in json.loads(answer.content[:length])["outputs"]:
        size = told["parameters"]["binary_data_size"]
        raw = answer.content[at : at + size]
        at += size
        if told["datatype"] == "BYTES":
            flat, here = [], 0
            while here < len(raw):
                end = here + 4 + int.from_bytes(raw[here : here + 4], "little")
                flat.append(raw[here + 4 : end].decode())
                here = end
        else:
            flat = np.frombuffer(raw, "<f4").tolist()
        found[told["name"]] = np.reshape(flat, told["shape"])
    return found


def model(answer: Any, shape: Any = (None, None)) -> Function:
    return Function(
        (Tensor("x", "float32", (None, None)),), (Tensor("y", "float32", shape),), answer
    )


def test_rows_of_several_sizes_are_scored_together_and_keep_their_order() -> None:
    spec = Contract.model_validate(CONTRACT | {"outputs": CONTRACT["outputs"][:1]})
    rows = [np.arange(size, dtype=np.float32) for size in (3, 1, 3, 2)]
    asked = model(lambda given: {"y": given["x"] + 1})
    keys = np.array(list("abcd"), object)
    found = Pipeline(spec, asked).score_columns(keys, {"x": column(rows)})
    assert not found.rejects
    for row, y in zip(rows, found.predictions.columns["y"], strict=True):
        np.testing.assert_array_equal(y, row + 1)
    assert RecordScorer(spec, asked).ask({"x": [1, 2]}) == {"y": [2.0, 3.0]}


def test_an_output_may_be_empty_and_a_bad_element_is_named() -> None:
    spec = Contract.model_validate(CONTRACT | {"outputs": CONTRACT["outputs"][:1]})
    nothing = model(lambda given: {"y": given["x"][:, :0]})
    assert RecordScorer(spec, nothing).ask({"x": [1, 2]}) == {"y": []}
    wrong = model(lambda given: {"y": np.full((1, 3), [1, np.nan, 2], np.float32)})
    found = Pipeline(spec, wrong).score_columns(
        np.array(["a"], object), {"x": np.ones((1, 2), np.float32)}
    )
    assert [str(each) for each in found.rejects] == ["y: element [1]: the model answered NaN"]


@pytest.mark.parametrize("shape", [(None,), (None, None, 3), (None, 2, 2, 2)])
def test_the_other_sizes_are_those_of_the_model(shape: Any) -> None:
    (_, pairs, *_) = Contract.model_validate(CONTRACT).outputs
    with pytest.raises(ContractMismatch, match=r"output pairs has shape \[-1, 2\]"):
        bind_outputs([pairs], [Tensor("pairs", "float32", shape)])
