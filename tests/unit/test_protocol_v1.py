"""Version 1 of the protocol: the same answers as version 2, from a model and from the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fourways_runtime.v2.protocol import rows_of
from tests.kit.gateway_plane import running
from tests.kit.serving_plane import MIXED, Serving, configure, mixed, serving, tensor
from tools.kit.models import LINEAR, linear

PATH = "/v1/models/churn:predict"
ROWS = [{"age": 33, "spend": 0.5, "rate": 1.5}, {"age": 120, "spend": -2.5, "rate": 2.0}]


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(configure(tmp_path, linear(), LINEAR, timeoutSeconds=30)) as plane:
        yield plane


async def predictions(plane: Serving, body: Any, field: str = "predictions") -> Any:
    answer = await plane.client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()[field]


async def by_version_2(plane: Serving) -> Any:
    answer = await plane.infer(
        tensor("age", "INT32", [row["age"] for row in ROWS]),
        tensor("spend", "FP32", [row["spend"] for row in ROWS]),
        tensor("rate", "FP32", [row["rate"] for row in ROWS]),
    )
    return answer.json()["outputs"][0]["data"]


async def test_instances_by_name_and_in_order_equal_version_2(plane: Serving) -> None:
    expected = await by_version_2(plane)
    assert await predictions(plane, {"instances": ROWS}) == expected
    described = (await plane.client.get("/v2/models/churn")).json()["inputs"]
    order = [one["name"] for one in described]
    listed = [[row[name] for name in order] for row in ROWS]
    assert await predictions(plane, {"instances": listed}) == expected
    columns = {name: [row[name] for row in ROWS] for name in order}
    assert await predictions(plane, {"inputs": columns}, "outputs") == expected


async def test_outputs_by_name_keep_their_shape(tmp_path: Path) -> None:
    row = {"word": "ü", "flag": True, "big": 2**64 - 1, "grid": [[1.0, 2.0], [3.0, 4.0]]}
    async with serving(configure(tmp_path, mixed(), MIXED)) as plane:
        (answer,) = await predictions(plane, {"instances": [row]})
    assert answer == {f"{name}_out": value for name, value in row.items()}


async def test_it_tells_whether_the_model_is_ready(plane: Serving) -> None:
    answer = await plane.client.get("/v1/models/churn")
    assert (answer.status_code, answer.json()) == (200, {"name": "churn", "ready": True})
    assert (await plane.client.get("/v1/models")).json() == {"models": ["churn"]}
    for path in ("/v1/models/other:predict", "/v1/models/churn:explain", "/v1/models/churn"):
        assert (await plane.client.post(path, json={"instances": ROWS})).status_code in (404, 405)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "instances"),
        ({"instances": {}}, "instances"),
        ({"inputs": {}}, "inputs"),
        ({"instances": {"age": 1}}, "instances"),
        ({"instances": ROWS, "inputs": {}}, "instances"),
        ({"instances": [{"agee": 1}]}, "inputs[0].name"),
        ({"instances": [[1, 2]]}, "instances[0]"),
        ({"instances": [7]}, "instances[0]"),
        ({"inputs": {"age": 1}}, "inputs"),
        ({"inputs": {"age": [1], "spend": [1, 2]}}, "inputs"),
        ({"instances": [ROWS[0], {"age": 1}]}, "spend"),
        ({"instances": [{**ROWS[0], "age": 121}]}, "age"),
        ({"instances": [{**ROWS[0], "age": "x"}]}, "age"),
        ({"rows": []}, "rows"),
        ({"instances": ROWS, "parameters": {"binary_data_output": True}}, "binary_data_output"),
        ({"instances": ROWS, "parameters": {"partial": 1}}, "parameters.partial"),
        ({"instances": ROWS, "parameters": [1]}, "parameters"),
    ],
)
async def test_a_bad_request_is_refused_by_field(plane: Serving, body: Any, field: str) -> None:
    answer = await plane.client.post(PATH, json=body)
    assert answer.status_code == 400
    assert field in answer.json()["field"]
    assert answer.json()["error"]


async def test_bad_rows_of_a_partial_request_keep_their_places(plane: Serving) -> None:
    (good, _), bad = ROWS, {**ROWS[0], "age": 121}
    (expected, _) = await by_version_2(plane)
    for rows, wanted in (
        ([bad, good, bad], [None, expected, None]),
        ([good, bad], [expected, None]),
        ([good, good], [expected, expected]),
    ):
        asked = {"parameters": {"partial": True}}
        told = await plane.client.post(PATH, json={**asked, "instances": rows})
        assert told.json()["predictions"] == wanted
        wrong = [at for at, one in enumerate(wanted) if one is None]
        assert [error["row"] for error in told.json().get("errors", [])] == wrong
        columns = {name: [row[name] for row in rows] for name in good}
        assert await predictions(plane, {**asked, "inputs": columns}, "outputs") == wanted


async def test_rows_of_several_outputs_keep_their_places(tmp_path: Path) -> None:
    good = {"word": "ü", "flag": True, "big": 1, "grid": [[1.0, 2.0], [3.0, 4.0]]}
    asked = {"instances": [{**good, "word": "no"}, good], "parameters": {"partial": True}}
    async with serving(configure(tmp_path, mixed(), MIXED)) as plane:
        (bad, answer) = await predictions(plane, asked)
    assert bad is None
    assert answer == {f"{name}_out": value for name, value in good.items()}


async def test_unknown_keys_keep_their_places(tmp_path: Path) -> None:
    asked = {"instances": ["nobody", "c1", "no one"], "parameters": {"allow_missing": True}}
    async with running(tmp_path) as gateway:
        answer = await gateway.client.post(PATH, json=asked)
        assert (answer.status_code, answer.json()["predictions"]) == (
            200,
            [
                {"found": False},
                {"score": 0.25, "label": "l1", "ok": False, "found": True},
                {"found": False},
            ],
        )
        answer = await gateway.client.post(PATH, json={**asked, "instances": ["nobody"]})
        assert answer.json()["predictions"] == [{"found": False}]


def test_rows_without_elements_are_rows() -> None:
    assert rows_of({"shape": [2, 0], "data": []}) == [[], []]
    assert rows_of({"shape": [1, 2, 0], "data": []}) == [[[], []]]
    assert rows_of({"shape": [2, 2, 1], "data": [1, 2, 3, 4]}) == [[[1], [2]], [[3], [4]]]
    assert rows_of({"shape": [0, 3], "data": []}) == []


async def test_stored_predictions_are_answered_by_key(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        client = gateway.client
        for instance in ("c1", ["c1"], {"entity_key": "c1"}):
            answer = await client.post(PATH, json={"instances": [instance]})
            assert answer.json()["predictions"] == [{"score": 0.25, "label": "l1", "ok": False}]
        missing = await client.post(PATH, json={"instances": ["c1", "nobody"]})
        assert (missing.status_code, missing.json()["missing"]) == (404, ["nobody"])
        many = await client.post("/v1/models/none:predict", json={"instances": ["c1"]})
        assert many.status_code == 404
