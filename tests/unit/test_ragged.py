"""Dimensions of any size: records of one size are scored together, alike in every mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from onnx import helper
from pydantic import ValidationError

from fourways_api import Contract
from fourways_http import Request
from fourways_runtime.errors import ContractMismatch
from fourways_runtime.scoring.golden import Vector, check_vectors
from fourways_runtime.scoring.json_cells import json_column
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.single import RecordRefused, RecordScorer
from fourways_runtime.scoring.table_pipeline import TablePipeline
from fourways_runtime.v2.request import RequestReader
from fourways_runtime.v2.scorer import RequestScorer
from fourways_runtime.workloads.gateway.events import EventReader
from tests.kit.models import Function
from tests.kit.serving_plane import configure, serving, tensor
from tools.kit.models import FLOAT, onnx_bytes

SERIES: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [
        {"name": "series", "type": "float32", "shape": [-1], "range": {"min": -5, "max": 5}},
        {"name": "weight", "type": "float32"},
    ],
    "outputs": [{"name": "y", "type": "float32"}],
}
LISTS = [[1.0, 2.0], [3.0], [4.0, 5.0], [0.5, 0.25, 0.125], [1.0]]
WEIGHTS = [1.0, 2.0, 3.0, 4.0, 5.0]
WANTED = [sum(row) * weight for row, weight in zip(LISTS, WEIGHTS, strict=True)]


def onnx_sum() -> bytes:
    """y = sum(series) · weight."""
    return onnx_bytes(
        [
            helper.make_node("ReduceSum", ["series", "axis"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "weight"], ["y"]),
        ],
        [("series", FLOAT, ["N", "L"]), ("weight", FLOAT, ["N"])],
        [("y", FLOAT, ["N"])],
        [("axis", np.array([1]))],
    )


class Summing(Function):
    """The same; it keeps the shapes of its calls."""

    def __init__(self) -> None:
        series = Tensor("series", "float32", (None, None))
        super().__init__(
            (series, Tensor("weight", "float32", (None,))),
            (Tensor("y", "float32", (None,)),),
            lambda given: {"y": given["series"].sum(axis=1) * given["weight"]},
        )
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, tensors: Any) -> dict[str, Any]:
        self.shapes.append(tensors["series"].shape)
        return super().predict(tensors)


def bound(model: Any = None) -> Pipeline:
    return Pipeline(Contract.model_validate(SERIES), model or Summing())


def scored(series: Any, model: Any = None, rows: Any = None) -> Any:
    weights = WEIGHTS[: len(series)]
    batch = {"id": list("abcdefgh")[: len(series)], "series": series, "weight": weights}
    return TablePipeline(bound(model)).score(pa.RecordBatch.from_pydict(batch), rows)


@pytest.mark.parametrize(
    "series",
    [
        pytest.param(pa.array(LISTS, pa.list_(pa.float32())), id="lists"),
        pytest.param(pa.array(LISTS, pa.large_list(pa.float64())), id="large"),
        pytest.param(pa.array([orjson.dumps(row).decode() for row in LISTS]), id="CSV"),
        pytest.param(json_column("float32", 1, LISTS), id="JSON"),
        pytest.param(json_column("float32", 1, [[1, 2.0], *LISTS[1:]]), id="mixed JSON"),
    ],
)
def test_records_of_one_size_are_scored_together_and_stay_in_order(series: Any) -> None:
    model = Summing()
    found = scored(series, model, np.array([10, 20, 30, 40, 50]))
    assert not found.rejects
    np.testing.assert_allclose(found.predictions.columns["y"], WANTED)
    assert found.predictions.rows.tolist() == [10, 20, 30, 40, 50]
    assert np.asarray(found.predictions.keys).tolist() == list("abcde")
    assert sorted(model.shapes) == [(1, 3), (2, 1), (2, 2)]


def test_lists_of_one_size_are_one_call() -> None:
    model = Summing()
    scored(pa.array([[1.0, 2.0], [3.0, 4.0]]), model)
    assert model.shapes == [(2, 2)]


def test_a_bad_record_is_rejected_by_its_element_and_the_others_are_scored() -> None:
    series = pa.array([[1.0, 9.0], None, [], [2.0, None, 1.0], [1.0]])
    found = scored(series)
    assert {each.row: str(each) for each in found.rejects} == {
        0: "series: element [1]: 9 is above 5",
        1: "series: missing",
        2: "series: holds no elements",
        3: "series: element [1]: missing",
    }
    assert found.predictions.columns["y"].tolist() == [5]
    texts = scored(pa.array(['"x"', "[[1]]", "3", "[1, 2]"]))
    assert [each.row for each in texts.rejects] == [0, 1, 2]
    assert len(scored(pa.array([None], pa.list_(pa.float32()))).rejects) == 1


async def test_each_request_has_a_size_and_requests_of_all_sizes_share_a_batch(
    tmp_path: Path,
) -> None:
    async with serving(configure(tmp_path, onnx_sum(), SERIES)) as plane:
        metadata = (await plane.client.get("/v2/models/churn")).json()
        for row, weight, wanted in zip(LISTS, WEIGHTS, WANTED, strict=True):
            answer = await plane.infer(
                tensor("series", "FP32", row, [1, len(row)]), tensor("weight", "FP32", [weight])
            )
            assert answer.json()["outputs"][0]["data"] == [wanted]
        old = await plane.client.post(
            "/v1/models/churn:predict",
            json={"instances": [{"series": LISTS[3], "weight": 4.0}]},
        )
        for data, shape in (([], [1, 0]), ([1.0], [1]), ([1.0], [1, 1, 1])):
            refused = await plane.infer(
                tensor("series", "FP32", data, shape), tensor("weight", "FP32", [1.0])
            )
            assert "inputs[0].shape: must be [N, -1] for series" in refused.json()["error"]
        left_out = await plane.infer(tensor("weight", "FP32", [1.0]))
        document = await plane.client.get("/v2/models/churn/openapi.json")
    assert metadata["inputs"][0]["shape"] == [-1, -1]
    assert old.json() == {"predictions": [WANTED[3]]}
    assert "series: missing: the contract requires" in left_out.json()["error"]
    series = document.json()["components"]["schemas"]["Record"]["properties"]["series"]
    assert (series["minItems"], "maxItems" in series) == (1, False)


def test_requests_of_a_batch_are_grouped_by_size() -> None:
    model = Summing()
    contract = Contract.model_validate(SERIES)
    scorer, reader = RequestScorer(contract, model, 64), RequestReader(contract, [], 64)

    def asked(rows: list[list[float]], weight: float = 1.0) -> Any:
        series = tensor("series", "FP32", rows, [len(rows), len(rows[0])])
        weights = tensor("weight", "FP32", [weight] * len(rows))
        body = orjson.dumps({"inputs": [series, weights]})
        return reader.read(Request(b"POST", b"/", [], body))

    requests: Any = ([[1, 2], [3, 4]], [[1]], [[4, 5]], [[9, 0, 0]], [[2]])
    parts = scorer.score([asked(rows) for rows in requests])
    assert sorted(model.shapes) == [(2, 1), (3, 2)]
    answers = [
        str(part) if isinstance(part, Exception) else part.columns["y"][part.start : part.stop]
        for part in parts
    ]
    good = [list(map(float, each)) for each in (*answers[:3], answers[4])]
    assert good == [[3, 7], [1], [9], [2]]
    assert "series: element [0]: 9 is above 5 (row 0)" in str(answers[3])


def test_devices_events_and_golden_vectors_take_any_size() -> None:
    contract = Contract.model_validate(SERIES | {"goldenVectors": {"uri": "file:///g.jsonl"}})
    scorer = RecordScorer(contract, Summing())
    for row, weight, wanted in zip(LISTS, WEIGHTS, WANTED, strict=True):
        assert scorer.ask({"series": row, "weight": weight}) == {"y": wanted}
    with pytest.raises(RecordRefused, match=r"series: has the shape \[0\], \[-1\] was expected"):
        scorer.ask({"series": [], "weight": 1})
    vectors = [
        Vector({"series": row, "weight": weight}, {"y": wanted})
        for row, weight, wanted in zip(LISTS, WEIGHTS, WANTED, strict=True)
    ]
    assert contract.golden_vectors is not None
    check_vectors(bound(), vectors, contract.golden_vectors)
    inputs = [
        tensor("id", "BYTES", ["u"]),
        tensor("series", "FP32", LISTS[3], [1, 3]),
        tensor("weight", "FP32", [1.0]),
    ]
    reader = EventReader(contract, 10, 1000)
    request = Request(b"POST", b"/", [], orjson.dumps({"inputs": inputs}))
    event = orjson.loads(reader.events(reader.read(request), ["u"])["u"])
    assert event["series"] == LISTS[3]


def test_several_free_dimensions_and_texts() -> None:
    fields = [
        {"name": "words", "type": "string", "shape": [-1]},
        {"name": "grid", "type": "float64", "shape": [-1, 2, -1]},
    ]
    model = Function(
        (Tensor("words", "string", (None, None)), Tensor("grid", "float64", (None, None, 2, None))),
        (),
        lambda given: {"y": given["grid"].sum(axis=(1, 2, 3)) + given["words"].shape[1]},
    )
    pipeline = Pipeline(Contract.model_validate({**SERIES, "inputs": fields}), model)
    grids = [[[[1], [2]]], [[[1, 1], [2, 2]], [[3, 3], [4, 4]]], [[[1], [2], [3]]], [[[1, 2], [3]]]]
    words = [["a"], ["b", "c"], ["d"], ["e"]]
    batch = pa.RecordBatch.from_pydict({"id": list("abcd"), "words": words, "grid": grids})
    found = TablePipeline(pipeline).score(batch)
    assert found.predictions.columns["y"].tolist() == [4, 22]
    assert [str(each) for each in found.rejects] == [
        "grid: has the shape [1, 3, 1], [-1, 2, -1] was expected (-1: any but 0)",
        "grid: its lists have 1 to 2 elements; pad them",
    ]


@pytest.mark.parametrize(
    ("tensor_shape", "told"),
    [((None, 8), "write the sizes that the model fixes"), ((None,), "write the sizes")],
)
def test_a_model_that_fixes_the_size_is_refused(tensor_shape: Any, told: str) -> None:
    model = Function(
        (Tensor("series", "float32", tensor_shape), Tensor("weight", "float32", (None,))), (), dict
    )
    with pytest.raises(ContractMismatch, match=told):
        bound(model)


def test_a_dimension_of_0_is_refused_with_the_fix() -> None:
    with pytest.raises(ValidationError):
        Contract.model_validate(
            {**SERIES, "inputs": [{"name": "x", "type": "float32", "shape": [0]}]}
        )


def test_a_nullable_input_may_be_left_out_whatever_its_shape() -> None:
    fields = [
        {"name": "a", "type": "float32", "shape": [2], "nullable": True},
        {"name": "b", "type": "float32", "nullable": True, "missing": -1},
    ]
    model = Function(
        (), (), lambda given: {"y": np.nan_to_num(given["a"]).sum(axis=1) + given["b"]}
    )
    contract = Contract.model_validate({**SERIES, "inputs": fields})
    lists = pa.array([[1.0, 2.0], None, [3.0, None]], pa.list_(pa.float64()))
    for column in (lists, pa.array(["[1,2]", None, "[3,null]"])):
        batch = {"id": list("uvw"), "a": column, "b": pa.array([1.0, 2.0, None])}
        found = TablePipeline(Pipeline(contract, model)).score(pa.RecordBatch.from_pydict(batch))
        assert found.predictions.columns["y"].tolist() == [4, 2, 2]
    absent = TablePipeline(Pipeline(contract, model)).score(
        pa.RecordBatch.from_pydict({"id": ["u"]})
    )
    assert absent.predictions.columns["y"].tolist() == [-1]
    assert RecordScorer(contract, model).ask({}) == {"y": -1}
    assert RecordScorer(contract, model).ask({"a": [1, 1]}) == {"y": 1}
