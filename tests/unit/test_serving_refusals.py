"""Every way a request can break the contract, and the words it is refused with."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.serving_plane import MIXED, Serving, configure, mixed, serving, tensor
from tools.kit.models import LINEAR, linear

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Serving]:
    config = configure(tmp_path, linear(), LINEAR, maxBatchRows=8, maxBodyBytes=100_000)
    async with serving(config) as plane:
        yield plane


@pytest.fixture
async def texts(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(configure(tmp_path, mixed(), MIXED)) as plane:
        yield plane


FORM = (
    '{"inputs":[{"name":"age","shape":[1],"datatype":"INT32","data":[0]},'
    '{"name":"spend","shape":[1],"datatype":"FP32","data":[0]},'
    '{"name":"rate","shape":[1],"datatype":"FP32","data":[0]}]}'
)


def good(rows: int = 2) -> dict[str, dict[str, Any]]:
    return {
        "age": tensor("age", "INT32", [30] * rows),
        "spend": tensor("spend", "FP32", [1.5] * rows),
        "rate": tensor("rate", "FP32", [1] * rows),
    }


def fine() -> dict[str, dict[str, Any]]:
    return {
        "word": tensor("word", "BYTES", ["a", "a"]),
        "flag": tensor("flag", "BOOL", [True, False]),
        "big": tensor("big", "UINT64", [1, 2]),
        "grid": tensor("grid", "FP64", [0] * 8, [2, 2, 2]),
    }


def check(answer: httpx.Response, field: str, reason: str, row: int | None = None) -> None:
    assert answer.status_code == 400, answer.text
    said = answer.json()
    assert (said["field"], said["reason"], said.get("row")) == (field, reason, row)
    assert said["error"].startswith(f"{field}: {reason}")


@pytest.mark.parametrize(
    ("name", "data", "reason", "row"),
    [
        pytest.param("age", [1, None], "missing", 1, id="null"),
        pytest.param("spend", [None, 1], "missing", 0, id="null-float"),
        pytest.param("age", [1, -1], "-1 is below 0", 1, id="below"),
        pytest.param("rate", [1, 10.5], "10.5 is above 10", 1, id="above"),
        pytest.param("age", [1, 1.5], "1.5 is not a whole number", 1, id="fraction"),
        pytest.param("age", [2**31, 1], None, 0, id="too-large"),
        pytest.param(
            "age",
            [2**63, 1],
            "9223372036854775808 is outside int32 (-2147483648 to 2147483647)",
            0,
            id="huge",
        ),
        pytest.param("spend", [1, 1e39], "1e+39 does not fit float32", 1, id="unfit"),
        pytest.param("spend", ["1", 1], "'1' is not a number", 0, id="text"),
        pytest.param("spend", [1, True], "true is not a number", 1, id="true"),
        pytest.param("age", [False, 1], "false is not a whole number", 0, id="false"),
        pytest.param("spend", [1, [2]], "a list is not a number", 1, id="list"),
        pytest.param("spend", [1, {}], "an object is not a number", 1, id="object"),
    ],
)
async def test_values(plane: Serving, name: str, data: Any, reason: str | None, row: int) -> None:
    inputs = good()
    inputs[name]["data"] = data
    answer = await plane.infer(*inputs.values())
    limits = "(-2147483648 to 2147483647)"
    check(answer, name, reason or f"2147483648 is outside int32 {limits}", row)


@pytest.mark.parametrize(
    ("name", "data", "field", "reason", "row"),
    [
        ("word", ["a", "b"], "word", "'b' is not one of a, ü, long one", 1),
        ("word", ["a", None], "word", "missing", 1),
        ("word", [1, "a"], "word", "1 is not text", 0),
        ("flag", [1, True], "flag", "1 is not true or false", 0),
        ("flag", [True, None], "flag", "missing", 1),
        ("flag", [True, "true"], "flag", "'true' is not true or false", 1),
        ("big", [1, -1], "big", "-1 is outside uint64 (0 to 18446744073709551615)", 1),
        (
            "big",
            [1, 2**64],
            "big",
            "18446744073709551616 is outside uint64 (0 to 18446744073709551615)",
            1,
        ),
        ("grid", [[[1, 2], [3, 4]], [[1, None], [3, 4]]], "grid", "element [0, 1]: missing", 1),
    ],
)
async def test_values_of_other_types(
    texts: Serving, name: str, data: Any, field: str, reason: str, row: int
) -> None:
    inputs = fine()
    inputs[name]["data"] = data
    check(await texts.infer(*inputs.values()), field, reason, row)


@pytest.mark.parametrize(
    ("name", "change", "field", "reason"),
    [
        ("age", {"datatype": "INT64"}, "inputs[0].datatype", "must be INT32 for age"),
        ("age", {"datatype": None}, "inputs[0].datatype", "must be INT32 for age"),
        ("age", {"shape": [2, 2]}, "inputs[0].shape", "must be [N] for age"),
        ("age", {"shape": []}, "inputs[0].shape", "must be [N] for age"),
        ("age", {"shape": "2"}, "inputs[0].shape", "must be [N] for age"),
        ("age", {"shape": [True]}, "inputs[0].shape", "must be [N] for age"),
        ("age", {"shape": [0]}, "inputs[0].data", "holds 2 values, the shape says 0"),
        ("age", {"shape": [-1]}, "inputs[0].shape", "holds -1 rows: N must be 0 or more"),
        (
            "age",
            {"shape": [9], "data": [1] * 9},
            "inputs[0].shape",
            "holds 9 rows, at most 8 are allowed in a request",
        ),
        (
            "rate",
            {"shape": [3], "data": [1, 2, 3]},
            "inputs[2].shape",
            "holds 3 rows, the tensors before it 2",
        ),
        ("age", {"data": [1]}, "inputs[0].data", "holds 1 values, the shape says 2"),
        ("age", {"data": 1}, "inputs[0].data", "must be a list"),
        (
            "age",
            {"data": [[1], [2, 3]], "shape": [2, 1]},
            "inputs[0].data",
            "is neither flat nor nested as the shape says",
        ),
        (
            "age",
            {"name": "size"},
            "inputs[0].name",
            "size is not an input; there are: age, spend, rate",
        ),
        ("age", {"name": 3}, "inputs[0].name", "must be a string"),
        ("spend", {"name": "age", "datatype": "INT32"}, "inputs[1].name", "age is given twice"),
        (
            "age",
            {"parameters": {"binary_data_size": 8}},
            "inputs[0].data",
            "and binary_data_size exclude each other",
        ),
    ],
)
async def test_tensors(
    plane: Serving, name: str, change: dict[str, Any], field: str, reason: str
) -> None:
    inputs = good()
    inputs[name].update(change)
    check(await plane.infer(*inputs.values()), field, reason)


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ([], "body", f"must be a JSON object: {FORM}"),
        ({}, "inputs", f"must be a list of tensors: {FORM}"),
        ({"inputs": []}, "inputs", f"must be a list of tensors: {FORM}"),
        ({"inputs": {"age": 5}}, "inputs", f"must be a list of tensors: {FORM}"),
        ({"age": 5}, "age", f"is not a field of the protocol; send {FORM}"),
        ({"inputs": [1]}, "inputs[0]", "must be an object"),
        ({"input": []}, "input", f"is not a field of the protocol; send {FORM}"),
        ({"extra": 1, "inputs": []}, "extra", "is not a field of the protocol"),
        ({"id": 5, "inputs": []}, "id", "must be a string of at most 256 characters"),
        ({"outputs": {}}, "outputs", "must be a list of at most 256 outputs"),
        ({"outputs": [{}]}, "outputs[0].name", "must be a string"),
        ({"outputs": [{"name": "y"}]}, "outputs[0].name", "is not an output; there are: score"),
        ({"outputs": [{"name": "score"}] * 2}, "outputs[1].name", "is requested twice"),
        (
            {"outputs": [{"name": "score", "parameters": {"binary_data": 1}}]},
            "outputs[0].parameters.binary_data",
            "must be true or false",
        ),
        ({"parameters": []}, "parameters", "must be an object"),
        (
            {"parameters": {"entity_keys": "c"}},
            "parameters.entity_keys",
            "must be a list of 2 keys, one a row",
        ),
        (
            {"parameters": {"entity_keys": ["c", ""]}},
            "parameters.entity_keys[1]",
            "must have 1 to 1024 characters",
        ),
        (
            {"parameters": {"entity_keys": ["c", 2]}},
            "parameters.entity_keys[1]",
            "must be a string: id is a string",
        ),
    ],
)
async def test_requests(plane: Serving, body: Any, field: str, reason: str) -> None:
    if isinstance(body, dict) and not {"inputs", "input", "age"} & body.keys() and body:
        body = {"inputs": list(good().values()), **body}
    check(await plane.client.post("/v2/models/churn/infer", json=body), field, reason)


async def test_an_input_that_is_missing(plane: Serving) -> None:
    inputs = good()
    del inputs["spend"]
    answer = await plane.infer(*inputs.values())
    check(answer, "spend", "missing: the contract requires this input")


async def test_not_json_not_small_not_there(plane: Serving) -> None:
    post = plane.client.post
    path = "/v2/models/churn/infer"
    assert "not JSON" in (await post(path, content=b"{")).json()["error"]
    assert "not JSON" in (await post(path, content=b'{"inputs":[NaN]}')).json()["error"]
    assert (await post(path, content=b"x" * 100_001)).status_code == 413
    assert (await post("/v2/models/other/infer", content=b"{}")).status_code == 404
    assert (await plane.client.get(path)).status_code == 405


async def test_a_combined_tensor(plane: Serving) -> None:
    def all_of(data: Any, shape: Any = (2, 3), datatype: str = "FP64") -> dict[str, Any]:
        return tensor("input", datatype, data, list(shape))

    both = [1, 2, 3, 4, 5, 6]
    wrong = await plane.infer(all_of([1, 2, 3, 4.5, 5, 6]))
    check(wrong, "age", "4.5 is not a whole number", 1)
    check(await plane.infer(all_of([1, 2, 3, 4, None, 6])), "spend", "missing", 1)
    check(await plane.infer(all_of([1, 2, 30, 4, 5, 6])), "rate", "30 is above 10", 0)
    check(await plane.infer(all_of([1, 2, "3", 4, 5, 6])), "rate", "'3' is not a number", 0)
    check(await plane.infer(all_of(both, (3, 2))), "inputs[0].shape", "must be [N, 3] for input")
    reason = "must be FP16 or FP32 or FP64 for input"
    check(await plane.infer(all_of(both, datatype="INT32")), "inputs[0].datatype", reason)
    reason = "input holds all inputs, some are given twice"
    check(await plane.infer(good()["age"], all_of(both)), "inputs[1].name", reason)
    check(await plane.infer(all_of(both), good()["age"]), "inputs[1].name", "age is given twice")


async def test_no_combined_tensor_where_inputs_are_not_numbers(texts: Serving) -> None:
    answer = await texts.infer(tensor("input", "FP32", [1, 2, 3, 4], [1, 4]))
    known = "input is not an input; there are: word, flag, big, grid"
    check(answer, "inputs[0].name", known)


async def test_bad_rows_are_named_with_their_keys(plane: Serving) -> None:
    inputs = good(3)
    inputs["age"]["data"] = [-1, 5, 200]
    for more, keys in (
        ({"parameters": {"entity_keys": ["c1", "c2", "c3"]}}, []),
        ({}, [tensor("id", "BYTES", ["c1", "c2", "c3"])]),
        ({}, [tensor("entity_key", "BYTES", ["c1", "c2", "c3"])]),
    ):
        said = (await plane.infer(*inputs.values(), *keys, **more)).json()
        assert said["rows"] == [
            {"row": 0, "key": "c1", "field": "age", "reason": "-1 is below 0"},
            {"row": 2, "key": "c3", "field": "age", "reason": "200 is above 120"},
        ]
        assert said["bad_rows"] == 2
    twice = await plane.infer(
        *good(1).values(), tensor("id", "BYTES", ["c"]), tensor("entity_key", "BYTES", ["c"])
    )
    check(twice, "inputs[4].name", "the entity key is given twice")


def sized(name: str, datatype: str, shape: list[int], size: Any) -> dict[str, Any]:
    given = {"name": name, "datatype": datatype, "shape": shape}
    return given | {"parameters": {"binary_data_size": size}}


async def send(
    plane: Serving, inputs: list[dict[str, Any]], blob: bytes, length: Any = None
) -> httpx.Response:
    header = json.dumps({"inputs": inputs}).encode()
    length = str(len(header) if length is None else length)
    return await plane.client.post(
        "/v2/models/churn/infer",
        content=header + blob,
        headers={"Inference-Header-Content-Length": length},
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [(NAN, "missing"), (INFINITY, "inf is above 10"), (-11.0, "-11 is below -10")],
)
async def test_binary_values(plane: Serving, value: float, reason: str) -> None:
    blob = struct.pack("<3f", 1, 2, value)
    check(await send(plane, [sized("input", "FP32", [1, 3], 12)], blob), "rate", reason, 0)


async def test_binary_that_does_not_add_up(plane: Serving, texts: Serving) -> None:
    combined = [sized("input", "FP32", [1, 3], 12)]
    check(
        await send(plane, [sized("input", "FP32", [1, 3], 8)], b"x" * 8),
        "inputs[0].data",
        "holds 8 bytes, shape and datatype say 12",
    )
    where = "inputs[0].parameters.binary_data_size"
    check(await send(plane, combined, b"x" * 8), where, "is 12 bytes, the body has 8 left")
    reason = "holds 1 bytes that belong to no tensor"
    check(await send(plane, combined, bytes(13)), "body", reason)
    for size in (-1, "12", 12.0, True):
        given = [sized("input", "FP32", [1, 3], size)]
        check(await send(plane, given, bytes(12)), where, "must be a whole number of bytes")
    for length in ("-1", "x", 10**6, "1e3", ""):
        answer = await send(plane, combined, bytes(12), length)
        assert answer.status_code == 400
        assert answer.json()["field"] == "Inference-Header-Content-Length"
    assert "not JSON" in (await send(plane, combined, bytes(12), 5)).json()["error"]
    reason = "needs the header Inference-Header-Content-Length"
    check(await plane.infer(*combined), where, reason)


@pytest.mark.parametrize(
    ("name", "datatype", "blob", "reason"),
    [
        ("flag", "BOOL", b"\x02", "a BOOL is a byte of 0 or 1"),
        ("word", "BYTES", b"\1\0\0", "ends within element 0"),
        ("word", "BYTES", b"\5\0\0\0a", "ends within element 0"),
        ("word", "BYTES", b"\1\0\0\0a!", "holds 1 bytes behind its last element"),
        ("word", "BYTES", b"\1\0\0\0\xff", "element 0 is not UTF-8"),
    ],
)
async def test_binary_elements(
    texts: Serving, name: str, datatype: str, blob: bytes, reason: str
) -> None:
    answer = await send(texts, [sized(name, datatype, [1], len(blob))], blob)
    check(answer, "inputs[0].data", reason)


async def test_a_nullable_input_may_be_missing(tmp_path: Path) -> None:
    contract = {**LINEAR, "inputs": [dict(field) for field in LINEAR["inputs"]]}
    contract["inputs"][1]["nullable"] = True
    contract["outputs"] = [{**LINEAR["outputs"][0]}]
    async with serving(configure(tmp_path, linear(), contract)) as plane:
        inputs = good(1)
        inputs["spend"]["data"] = [None]
        # It reaches the model as NaN, and this model answers NaN: no answer within the contract.
        answer = await plane.infer(*inputs.values())
        assert (answer.status_code, answer.json()["field"]) == (500, "score")
        del inputs["spend"]  # may be left out, too
        answer = await plane.infer(*inputs.values())
        assert (answer.status_code, answer.json()["reason"]) == (500, "the model answered NaN")
