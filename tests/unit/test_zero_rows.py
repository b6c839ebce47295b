"""Requests without rows: every mode answers them without rows, in every encoding."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fourways_http import Request
from fourways_runtime.grpc_v2.conversion import binary_request, infer_response
from fourways_runtime.grpc_v2.messages import message
from fourways_runtime.v2.body import BINARY_HEADER
from tests.kit.gateway_plane import running
from tests.kit.gateway_streams import streaming
from tests.kit.serving_plane import MIXED, Serving, configure, mixed, serving, tensor
from tools.kit.models import LINEAR, linear

PATH = "/v2/models/churn/infer"
FLOATS: dict[str, Any] = {
    **LINEAR,
    "inputs": [{"name": name, "type": "float32"} for name in "abc"],
}
NONE_OF_MIXED = [
    tensor("word", "BYTES", [], [0]),
    tensor("flag", "BOOL", [], [0]),
    tensor("big", "UINT64", [], [0]),
    tensor("grid", "FP64", [], [0, 2, 2]),
]


@pytest.fixture
async def floats(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(configure(tmp_path, linear(), FLOATS, timeoutSeconds=30)) as plane:
        yield plane


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(configure(tmp_path, mixed(), MIXED, timeoutSeconds=30)) as plane:
        yield plane


def outputs(answer: Any) -> list[tuple[str, list[int], Any]]:
    assert answer.status_code == 200, answer.text
    return [(one["name"], one["shape"], one["data"]) for one in answer.json()["outputs"]]


async def test_one_tensor_of_no_rows(floats: Serving) -> None:
    for _ in range(3):  # the second and third might be taken from what is known of the first
        answer = await floats.infer(tensor("input", "FP32", [], [0, 3]))
        assert outputs(answer) == [("score", [0], [])]
        one = await floats.infer(tensor("input", "FP32", [1.0, 2.0, 3.0], [1, 3]))
        assert [shape for _, shape, _ in outputs(one)] == [[1]]
    answer = await floats.infer(tensor("input", "FP32", [], [0, 3]), parameters={"partial": True})
    assert answer.json()["parameters"] == {"rows": [], "bad_rows": 0, "errors": []}


async def test_tensors_of_every_type(several: Serving) -> None:
    wanted = [
        ("word_out", [0], []),
        ("flag_out", [0], []),
        ("big_out", [0], []),
        ("grid_out", [0, 2, 2], []),
    ]
    assert outputs(await several.infer(*NONE_OF_MIXED)) == wanted
    assert outputs(await several.infer(*NONE_OF_MIXED, tensor("id", "INT64", [], [0]))) == wanted
    answer = await several.client.post("/v1/models/churn:predict", json={"instances": []})
    assert (answer.status_code, answer.json()) == (200, {"predictions": []})
    mixed_up = [*NONE_OF_MIXED[:3], tensor("grid", "FP64", [1.0] * 4, [1, 2, 2])]
    assert (await several.infer(*mixed_up)).status_code == 400


@pytest.mark.parametrize("binary_output", [True, False])
async def test_binary_tensors_of_no_bytes(several: Serving, binary_output: bool) -> None:
    told = [
        {**{k: v for k, v in one.items() if k != "data"}, "parameters": {"binary_data_size": 0}}
        for one in NONE_OF_MIXED
    ]
    asked = {"inputs": told, "parameters": {"binary_data_output": binary_output}}
    body = json.dumps(asked).encode()
    for _ in range(2):
        answer = await several.client.post(
            PATH, content=body, headers={BINARY_HEADER.decode(): str(len(body))}
        )
        assert answer.status_code == 200, answer.text
        assert [one["shape"] for one in answer.json()["outputs"]] == [[0], [0], [0], [0, 2, 2]]


@pytest.mark.parametrize("raw", [[], [b""] * 4])
async def test_messages_of_grpc(several: Serving, raw: list[bytes]) -> None:
    tensors = [{k: v for k, v in one.items() if k != "data"} for one in NONE_OF_MIXED]
    asked = message("ModelInferRequest")(model_name="churn", inputs=tensors, raw_input_contents=raw)
    length, body = binary_request(asked)
    request = Request(b"POST", PATH.encode(), [(BINARY_HEADER, b"%d" % length)], body)
    made = infer_response(await several.server.answer(request), not raw)
    assert [list(one.shape) for one in made.outputs] == [[0], [0], [0], [0, 2, 2]]
    assert list(made.raw_output_contents) == raw


async def test_stored_predictions(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"inputs": [tensor("entity_key", "BYTES", [], [0])]}
    async with running(tmp_path) as gateway:
        for parameters, names in (
            ({}, ["score", "label", "ok"]),
            ({"allow_missing": True}, ["score", "label", "ok", "found"]),
        ):
            answer = await gateway.client.post(PATH, json={**asked, "parameters": parameters})
            assert outputs(answer) == [(name, [0], []) for name in names]
        answer = await gateway.client.post("/v1/models/churn:predict", json={"instances": []})
        assert (answer.status_code, answer.json()) == (200, {"predictions": []})


async def test_streams_publish_nothing_for_nothing(tmp_path: Path) -> None:
    inputs = [
        tensor("customer", "BYTES", [], [0]),
        tensor("x", "FP32", [], [0]),
        tensor("n", "INT32", [], [0]),
        tensor("word", "BYTES", [], [0]),
        tensor("pair", "FP64", [], [0, 2]),
    ]
    async with streaming(tmp_path) as (gateway, broker):
        for some in (inputs, inputs[:1]):
            answer = await gateway.client.post("/v2/models/sensor/infer", json={"inputs": some})
            assert outputs(answer) == [("score", [0], []), ("label", [0], [])]
        assert broker.events == []
