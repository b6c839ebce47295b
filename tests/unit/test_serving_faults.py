"""Whose fault it is: the client's, the model's; and a request some of whose rows are bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from fourways_runtime.errors import ModelError
from fourways_runtime.scoring.model import Tensor
from fourways_runtime.workloads import prepare
from tests.kit.serving_plane import Serving, configure, serving, tensor
from tools.kit.models import onnx_bytes

FLOAT = TensorProto.FLOAT
LOG: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": "x", "type": "float32", "range": {"max": 1000}}],
    "outputs": [{"name": "y", "type": "float32", "range": {"max": 5}}],
}


def log() -> bytes:
    """y = log(x): NaN below 0, -inf at 0."""
    return onnx_bytes(
        [helper.make_node("Log", ["x"], ["y"])],
        [("x", FLOAT, ["N", 1])],
        [("y", FLOAT, ["N", 1])],
    )


async def said(plane: Serving, *data: float | str, **parameters: Any) -> tuple[int, Any]:
    answer = await plane.infer(tensor("x", "FP32", list(data)), parameters=parameters)
    return answer.status_code, answer.json()


async def test_the_fault_is_told_and_counted_where_it_lies(tmp_path: Path) -> None:
    async with serving(configure(tmp_path, log(), LOG)) as plane:
        for data, told in (
            ([-1.0], "y: the model answered NaN (row 0)"),
            ([1.0, 0.0], "y: the model answered -inf (row 1)"),
            ([500.0], "y: 6.2146"),
        ):
            status, answer = await said(plane, *data)
            assert status == 500
            assert answer["error"].startswith(told)
        assert await plane.metric("fourways_inference_failures_total") == 3
        assert await plane.metric("fourways_model_bad_rows_total") == 3
        for data in ([2000.0], [2000.0, -1.0], ["a", -1.0]):
            assert (await said(plane, *data))[0] == 400, "the client's, whatever the model says"
        assert await plane.metric("fourways_inference_failures_total") == 3


class Forgets:
    """A model that declares an output and answers with it only while it is tried out."""

    inputs = (Tensor("x", "float32", (None, 1)),)
    outputs = (Tensor("y", "float32", (None, 1)),)

    def __init__(self) -> None:
        self.forgets = False

    def predict(self, tensors: Any) -> Any:
        return {} if self.forgets else {"y": tensors["x"] / 1000}


async def test_a_model_that_forgets_an_output_is_at_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Forgets()
    monkeypatch.setattr(prepare, "load", lambda *args, **kwargs: model)
    async with serving(configure(tmp_path, log(), LOG)) as plane:
        model.forgets = True
        for rows in (1, 2):
            answer = await plane.infer(tensor("x", "FP32", [1.0] * rows))
            assert answer.status_code == 500
            assert answer.headers["x-fourways-fault"] == "model"
            assert answer.json()["error"].startswith("output y is read from y, the model answers")
        assert await plane.metric("fourways_inference_failures_total") == 2


async def test_good_rows_are_answered_where_that_is_asked_for(tmp_path: Path) -> None:
    async with serving(configure(tmp_path, log(), LOG)) as plane:
        status, answer = await said(plane, 1.0, -1.0, "a", 2000.0, 1.0, partial=True)
        assert status == 200
        assert answer["outputs"][0]["shape"] == [2]
        assert answer["outputs"][0]["data"] == [0, 0]
        assert answer["parameters"] == {
            "rows": [0, 4],
            "bad_rows": 3,
            "errors": [
                {"row": 1, "field": "y", "reason": "the model answered NaN"},
                {"row": 2, "field": "x", "reason": "'a' is not a number"},
                {"row": 3, "field": "x", "reason": "2000 is above 1000"},
            ],
        }
        status, answer = await said(plane, 1.0, 1.0, partial=True)
        assert (status, answer["parameters"]) == (
            200,
            {"rows": [0, 1], "bad_rows": 0, "errors": []},
        )
        assert (await said(plane, "a", partial=True))[0] == 400
        assert (await said(plane, -1.0, partial=True))[0] == 500
        assert (await said(plane, -1.0, partial="yes"))[1]["field"] == "parameters.partial"


@pytest.mark.parametrize(
    ("header", "value", "field"),
    [
        ("x-request-timeout", "0", "X-Request-Timeout"),
        ("x-request-timeout", "soon", "X-Request-Timeout"),
        ("x-request-timeout", "1e5", "X-Request-Timeout"),
        ("grpc-timeout", "100", "grpc-timeout"),
        ("grpc-timeout", "m", "grpc-timeout"),
        ("x-request-timeout", "2.5", None),
        ("grpc-timeout", "2500m", None),
    ],
)
async def test_a_client_s_own_timeout(
    tmp_path: Path, header: str, value: str, field: str | None
) -> None:
    async with serving(configure(tmp_path, log(), LOG)) as plane:
        answer = await plane.client.post(
            "/v2/models/churn/infer",
            json={"inputs": [tensor("x", "FP32", [1])]},
            headers={header: value},
        )
        assert answer.json().get("field") == field
        assert answer.status_code == (200 if field is None else 400)


class Fails:
    """A model that raises where a record is above a limit; it says how many rows it is asked."""

    inputs = (Tensor("x", "float32", (None, 1)),)
    outputs = (Tensor("y", "float32", (None, 1)),)

    def __init__(self) -> None:
        self.limit = 1e9
        self.asked: list[int] = []

    def predict(self, tensors: Any) -> Any:
        self.asked.append(len(tensors["x"]))
        if (tensors["x"] > self.limit).any():
            raise ModelError("its code failed: KeyError")
        return {"y": tensors["x"] / 1000}


async def test_rows_at_which_the_model_fails_are_bad_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Fails()
    monkeypatch.setattr(prepare, "load", lambda *args, **kwargs: model)
    async with serving(configure(tmp_path, log(), LOG)) as plane:
        model.limit = 500
        rows = [1.0] * 64
        rows[7], rows[40] = 600, 700
        status, answer = await said(plane, *rows, partial=True)
        assert (status, answer["outputs"][0]["shape"]) == (200, [62])
        assert answer["parameters"]["errors"] == [
            {"row": at, "field": "row", "reason": "its code failed: KeyError"} for at in (7, 40)
        ]
        status, answer = await said(plane, *rows)
        assert (status, answer["bad_rows"]) == (500, 2)
        assert answer["error"] == "row: its code failed: KeyError (row 7)"
        status, answer = await said(plane, 2000.0, 600.0, 1.0)
        assert (status, answer["error"]) == (400, "x: 2000 is above 1000 (row 0)")
        assert (await said(plane, 600.0, partial=True))[0] == 500
        model.asked.clear()
        status, answer = await said(plane, *[600.0] * 64, partial=True)
        assert (status, answer) == (500, {"error": "its code failed: KeyError"})
        assert len(model.asked) < 64, "a model that fails at every row is not asked for each"


async def test_an_output_that_has_the_name_of_an_input_is_the_models(tmp_path: Path) -> None:
    contract = {
        **LOG,
        "outputs": [{"name": "x", "type": "float32", "tensor": "y", "range": {"max": 5}}],
    }
    async with serving(configure(tmp_path, log(), contract)) as plane:
        status, answer = await said(plane, 500.0)
        assert (status, answer["error"][:9]) == (500, "x: 6.2146")
        assert (await said(plane, 2000.0))[0] == 400
        assert await plane.metric("fourways_model_bad_rows_total") == 1
