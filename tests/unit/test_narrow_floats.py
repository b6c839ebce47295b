"""Half floats in the contract and bfloat16 inside of models: the same values in every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

from fourways_api import Contract
from fourways_api.model import ModelReference
from fourways_http import Response
from fourways_runtime.grpc_v2.conversion import binary_request, infer_response
from fourways_runtime.grpc_v2.messages import message
from fourways_runtime.io.postgres.copy_in import Packer
from fourways_runtime.io.sinks.chunk_files import Layout
from fourways_runtime.io.store.layout import columns
from fourways_runtime.scoring import model as models
from fourways_runtime.scoring.columns import Predictions
from fourways_runtime.scoring.hashing import row_hashes
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.table_pipeline import TablePipeline
from tests.kit.serving_plane import configure, serving, tensor
from tools.kit.models import FLOAT, onnx_bytes

HALF: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [
        {"name": "a", "type": "float16", "range": {"min": -100, "max": 30000}},
        {"name": "b", "type": "float16", "nullable": True},
    ],
    "outputs": [{"name": "y", "type": "float16", "shape": [2]}],
}
A, B = [0.1, 2.0, 300.0], [1.5, -7.0, 0.333]
WANTED = (np.array([A, B], np.float16).T * np.float16(2)).astype(np.float16)


def half() -> bytes:
    """y = x + x, of shape (N, 2) in half floats."""
    kind = TensorProto.FLOAT16
    return onnx_bytes(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", kind, ["N", 2])],
        [("y", kind, ["N", 2])],
    )


def loaded(raw: bytes, folder: Path) -> models.Model:
    (folder / "model").write_bytes(raw)
    return models.load(
        folder / "model", ModelReference(uri="file:///m.onnx", version="1"), threads=1
    )


async def test_json_binary_and_one_tensor_give_the_same_halves(tmp_path: Path) -> None:
    halves = np.array([A, B], "<f2").T.copy()
    async with serving(configure(tmp_path, half(), HALF)) as plane:
        each = await plane.infer(tensor("a", "FP16", A), tensor("b", "FP16", B))
        one = await plane.infer(tensor("input", "FP16", halves.reshape(-1).tolist(), [3, 2]))
        described = {"name": "input", "datatype": "FP16", "shape": [3, 2]}
        described["parameters"] = {"binary_data_size": 12}
        head = orjson.dumps({"inputs": [described], "parameters": {"binary_data_output": True}})
        raw = await plane.client.post(
            "/v2/models/churn/infer",
            content=head + halves.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        refused = await plane.infer(tensor("a", "FP16", [70_000]), tensor("b", "FP16", [1]))
        wrong = await plane.infer(tensor("a", "FP32", [1]), tensor("b", "FP16", [1]))
    (output,) = each.json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP16", [3, 2])
    np.testing.assert_array_equal(np.array(output["data"], np.float16), WANTED.reshape(-1))
    assert one.json()["outputs"] == each.json()["outputs"]
    assert raw.content.endswith(WANTED.astype("<f2").tobytes())
    assert "a: 70000 does not fit float16" in refused.json()["error"]
    assert "must be FP16 for a" in wrong.json()["error"]


async def test_over_grpc_halves_are_raw_in_both_directions(tmp_path: Path) -> None:
    asked = message("ModelInferRequest")(
        inputs=[{"name": "input", "datatype": "FP16", "shape": [3, 2]}],
        raw_input_contents=[np.array([A, B], "<f2").T.tobytes()],
    )
    length, body = binary_request(asked)
    async with serving(configure(tmp_path, half(), HALF)) as plane:
        answer = await plane.client.post(
            "/v2/models/churn/infer",
            content=body,
            headers={"Inference-Header-Content-Length": str(length)},
        )
    at = int(answer.headers["inference-header-content-length"])
    line = b"inference-header-content-length: %d" % at
    made = infer_response(Response(answer.content, 200, headers=(line,)), typed=True)
    assert made.raw_output_contents[0] == WANTED.astype("<f2").tobytes()


@pytest.mark.parametrize(
    "a",
    [
        pa.array(np.array(A, np.float16)),
        pa.array(np.array(A, np.float16)).take(pa.array([0, 1, 2])),
        pa.array(A, pa.float64()),
        pa.array(["0.1", "2", "3e2"]),
    ],
    ids=["half", "copied", "double", "text"],
)
def test_tables_give_the_same_halves(a: Any, tmp_path: Path) -> None:
    pipeline = Pipeline(Contract.model_validate(HALF), loaded(half(), tmp_path))
    b = pa.array(np.array(B, np.float16))
    scored = TablePipeline(pipeline).score(
        pa.RecordBatch.from_pydict({"id": list("uvw"), "a": a, "b": b})
    )
    assert not scored.rejects
    np.testing.assert_array_equal(scored.predictions.columns["y"], WANTED)


def test_a_missing_half_is_missing_and_a_whole_number_is_not_rounded(tmp_path: Path) -> None:
    pipeline = Pipeline(Contract.model_validate(HALF), loaded(half(), tmp_path))
    halves = pa.array([None, np.float16(1), None], pa.float16())
    batch = {"id": list("uvw"), "a": pa.array([1, 2, 2049]), "b": halves}
    scored = TablePipeline(pipeline).score(pa.RecordBatch.from_pydict(batch))
    assert {each.row: str(each) for each in scored.rejects} == {
        0: "y: element [1]: the model answered NaN",
        2: "a: 2049 would be rounded in float16",
    }
    assert scored.predictions.columns["y"].tolist() == [[4, 2]]
    hashed = row_hashes(pa.RecordBatch.from_pydict({"b": halves}), ("b",))
    assert hashed[0] == hashed[2] != hashed[1]


def test_stores_and_files_keep_halves_in_the_next_wider_type() -> None:
    contract = Contract.model_validate(HALF)
    keys = np.array(["u", "v", "w"], object)
    table = Layout(contract).table(Predictions(keys, np.arange(3), {"y": WANTED}))
    assert table.schema.field("y").type == pa.list_(pa.float32())
    np.testing.assert_array_equal(np.stack(table.column("y").to_pylist()), WANTED)
    wide = {**HALF, "outputs": [{"name": "y", "type": "float32", "shape": [2]}]}
    packed = [
        Packer(columns(each)).pack([keys, values])
        for each, values in (
            (contract, WANTED),
            (Contract.model_validate(wide), WANTED.astype(np.float32)),
        )
    ]
    assert packed[0] == packed[1]


def test_bfloat16_is_cast_at_the_edge_of_the_model(tmp_path: Path) -> None:
    narrow = TensorProto.BFLOAT16
    raw = onnx_bytes(
        [
            helper.make_node("Cast", ["x"], ["wide"], to=FLOAT),
            helper.make_node("Add", ["wide", "z"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["y"], to=narrow),
        ],
        [("x", narrow, ["N", 2]), ("z", FLOAT, ["N", 2])],
        [("y", narrow, ["N", 2]), ("sum", FLOAT, ["N", 2])],
    )
    model = loaded(raw, tmp_path)
    assert {each.type for each in (*model.inputs, *model.outputs)} == {"float32"}
    x = np.array([[1.0, 1 + 2**-8], [1 + 3 * 2**-8, -3.0e38], [np.nan, np.inf]], np.float32)
    answers = model.predict({"x": x, "z": np.zeros((3, 2), np.float32)})
    # Eight bits of mantissa: ties go to the even neighbour.
    wanted = np.array([[1, 1], [1 + 2**-6, -3e38], [np.nan, np.inf]], np.float32)
    np.testing.assert_allclose(answers["y"], wanted, rtol=2**-8)
    np.testing.assert_array_equal(answers["y"][0], [1, 1])
    np.testing.assert_array_equal(answers["y"], answers["sum"])
