"""What the model server answers: onnxruntime's answers, in JSON and binary, alone and together."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest

from fourways_api import Contract
from fourways_runtime.scoring import model as models
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.table_pipeline import TablePipeline
from tests.kit.serving_plane import MIXED, Serving, configure, mixed, serving, tensor
from tests.kit.waiting import until_async
from tools.kit.models import FLOAT, LINEAR, linear, onnx_bytes

AGES, SPENDS, RATES = [33, 0, 120], [0.1, -2.5, 3e10], [1.5, -10.0, 10.0]
PATIENT_SECONDS = 20.0
PATIENT = {"timeoutSeconds": PATIENT_SECONDS}
"""The time limit of a server whose model is held while requests gather, on a busy machine too."""

RECORDS = np.array([AGES, SPENDS, RATES], np.float32).T.copy()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(configure(tmp_path, linear(), LINEAR, **PATIENT)) as plane:
        yield plane


def three(start: int = 0, stop: int = 3) -> list[dict[str, Any]]:
    return [
        tensor("spend", "FP32", SPENDS[start:stop]),
        tensor("age", "INT32", AGES[start:stop]),
        tensor("rate", "FP32", [[rate] for rate in RATES[start:stop]], [stop - start, 1]),
    ]


def expected(records: Any = RECORDS) -> list[float]:
    session = onnxruntime.InferenceSession(linear(), providers=["CPUExecutionProvider"])
    values: np.ndarray[Any, Any] = session.run(None, {"x": records})[0]
    return [float(value) for value in values.reshape(-1)]


def scores(answer: Any) -> list[float]:
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    assert (output["name"], output["datatype"]) == ("score", "FP32")
    assert output["shape"] == [len(output["data"])]
    return [float(np.float32(value)) for value in output["data"]]


async def test_answers_are_onnxruntimes_own(plane: Serving) -> None:
    answer = await plane.infer(*three(), id="r1")
    assert scores(answer) == expected()
    said = answer.json()
    assert (said["model_name"], said["model_version"], said["id"]) == ("churn", "v1", "r1")


@pytest.mark.parametrize("name", ["input", "x"])
@pytest.mark.parametrize("nested", [False, True])
async def test_all_inputs_as_one_tensor(plane: Serving, name: str, nested: bool) -> None:
    data = RECORDS.astype(np.float64)
    body = data.tolist() if nested else data.reshape(-1).tolist()
    assert scores(await plane.infer(tensor(name, "FP64", body, [3, 3]))) == expected()


async def test_answers_equal_the_batch_pipelines(plane: Serving, tmp_path: Path) -> None:
    reference = configure(tmp_path, linear(), LINEAR).model
    model = models.load(tmp_path / "volumes/data/model.onnx", reference, threads=1)
    columns: dict[str, Any] = {"id": list("abc"), "age": AGES, "spend": SPENDS, "rate": RATES}
    pipeline = Pipeline(Contract.model_validate(LINEAR), model)
    scored = TablePipeline(pipeline).score(pa.RecordBatch.from_pydict(columns))
    assert not scored.rejects
    assert scores(await plane.infer(*three())) == scored.predictions.columns["score"].tolist()


async def test_what_it_says_of_itself(plane: Serving) -> None:
    get = plane.client.get
    assert (await get("/v2/health/live")).json() == {"live": True}
    assert (await get("/v2/health/ready")).json() == {"ready": True}
    assert (await get("/v2")).json()["extensions"] == ["binary_tensor_data", "model_repository"]
    assert (await get("/v2/models")).json() == {"models": ["churn"]}
    index = (await plane.client.post("/v2/repository/index", content=b"{}")).json()
    assert index == [{"name": "churn", "version": "v1", "state": "READY", "reason": ""}]
    for path in ("/v2/models/churn", "/v2/models/churn/versions/v1"):
        said = (await get(path)).json()
        assert (said["name"], said["versions"]) == ("churn", ["v1"])
        assert said["inputs"][0] == {"name": "age", "datatype": "INT32", "shape": [-1]}
        assert said["outputs"] == [{"name": "score", "datatype": "FP32", "shape": [-1]}]
        assert (await get(f"{path}/ready")).json() == {"name": "churn", "ready": True}
    for path in ("/v2/models/other", "/v2/models/churn/versions/v2", "/v2/models/churn/load"):
        assert (await get(path)).status_code == 404
    versioned = "/v2/models/churn/versions/v1/infer"
    answer = await plane.client.post(versioned, json={"inputs": three()})
    assert scores(answer) == expected()


# ---------------------------------------------------------------- binary


def packed(header: dict[str, Any], *blobs: bytes) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(header).encode()
    return text + b"".join(blobs), {"Inference-Header-Content-Length": str(len(text))}


def unpacked(answer: Any) -> tuple[dict[str, Any], bytes]:
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    return json.loads(answer.content[:length]), answer.content[length:]


def sized(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    given = {"name": name, "datatype": datatype, "shape": shape}
    return given | {"parameters": {"binary_data_size": size}}


@pytest.mark.parametrize("pad", range(4), ids="pad{}".format)
async def test_binary_in_and_out(plane: Serving, pad: int) -> None:
    raw = RECORDS.tobytes()
    header = {
        "id": "x" * pad,  # elements lie at any alignment behind it
        "inputs": [sized("x", "FP32", [3, 3], len(raw))],
        "parameters": {"binary_data_output": True},
    }
    body, headers = packed(header, raw)
    answer = await plane.client.post("/v2/models/churn/infer", content=body, headers=headers)
    said, rest = unpacked(answer)
    assert said["outputs"][0]["parameters"] == {"binary_data_size": 12}
    assert answer.headers["content-type"] == "application/octet-stream"
    assert np.frombuffer(rest, "<f4").tolist() == expected()


async def test_every_type_mixed_in_json_and_binary(tmp_path: Path) -> None:
    words = b"".join(struct.pack("<I", len(w)) + w for w in (b"a", "ü".encode()))
    flags, big = b"\x01\x00", struct.pack("<2Q", 2**64 - 1, 7)
    grid = [[[0.1, 2], [3, 4]], [[5, 6], [7, 1e300]]]
    header = {
        "inputs": [
            sized("word", "BYTES", [2], len(words)),
            tensor("grid", "FP64", grid, [2, 2, 2]),
            sized("flag", "BOOL", [2], 2),
            sized("big", "UINT64", [2, 1], 16),
        ],
        "outputs": [
            {"name": "big_out", "parameters": {"binary_data": True}},
            {"name": "grid_out"},
            {"name": "word_out", "parameters": {"binary_data": True}},
            {"name": "flag_out", "parameters": {"binary_data": True}},
        ],
    }
    async with serving(configure(tmp_path, mixed(), MIXED, **PATIENT)) as plane:
        body, headers = packed(header, words, flags, big)
        path = "/v2/models/churn/infer"
        said, rest = unpacked(await plane.client.post(path, content=body, headers=headers))
        assert [output["name"] for output in said["outputs"]] == [
            "big_out",
            "grid_out",
            "word_out",
            "flag_out",
        ]
        assert said["outputs"][1]["data"] == [0.1, 2, 3, 4, 5, 6, 7, 1e300]
        assert said["outputs"][1]["shape"] == [2, 2, 2]
        assert rest == big + words + flags
        answer = await plane.infer(
            tensor("word", "BYTES", ["a", "long one"]),
            tensor("grid", "FP64", [0, 1, 2, 3, 4, 5, 6, 7], [2, 2, 2]),
            tensor("flag", "BOOL", [True, False]),
            tensor("big", "UINT64", [2**64 - 1, 0.0]),
        )
        outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
        assert outputs == {
            "word_out": ["a", "long one"],
            "flag_out": [True, False],
            "big_out": [2**64 - 1, 0],
            "grid_out": [0, 1, 2, 3, 4, 5, 6, 7],
        }


# ---------------------------------------------------------------- together


def one(age: Any, rate: Any = 1.0) -> list[dict[str, Any]]:
    return [
        tensor("age", "INT32", [age]),
        tensor("spend", "FP32", [2]),
        tensor("rate", "FP32", [rate]),
    ]


class Gate:
    """Holds the model until a batch more has gathered behind it."""

    def __init__(self, plane: Serving) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        score = plane.batcher._scorer.score

        def gated(inferences: Any) -> Any:
            self.entered.set()
            assert self.open.wait(PATIENT_SECONDS)
            return score(inferences)

        plane.batcher._scorer.score = gated  # type: ignore[method-assign]


async def waiting(plane: Serving, count: int) -> None:
    async def enough() -> bool:
        return await plane.metric("fourways_requests_waiting") >= count

    await until_async(enough, f"{count} requests wait")


async def test_what_arrives_together_is_scored_together(tmp_path: Path) -> None:
    async with serving(configure(tmp_path, linear(), LINEAR, **PATIENT)) as plane:
        gate = Gate(plane)
        first = asyncio.create_task(plane.infer(*one(1)))
        assert await asyncio.to_thread(gate.entered.wait, PATIENT_SECONDS)
        many = [asyncio.create_task(plane.infer(*one(age))) for age in range(20)]
        many.append(asyncio.create_task(plane.infer(tensor("x", "FP32", [1, 2, 3], [1, 3]))))
        await waiting(plane, 21)
        # Probes are answered while the model is at work.
        assert (await plane.client.get("/v2/health/live")).status_code == 200
        assert await plane.metric("fourways_requests_waiting") == 21
        gate.open.set()
        answers = await asyncio.gather(first, *many)
        rows = np.array([[1, 2, 1], *([age, 2, 1] for age in range(20)), [1, 2, 3]], np.float32)
        assert [scores(answer)[0] for answer in answers] == expected(rows)
        assert await plane.metric("fourways_batch_requests_count") == 2
        assert await plane.metric("fourways_batch_requests_sum") == 22
        assert await plane.metric("fourways_inference_rows_total") == 22


async def test_one_tick_is_one_batch(plane: Serving) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.server.port)
    body = json.dumps({"inputs": one(3)}).encode()
    head = b"POST /v2/models/churn/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    writer.write((head % len(body) + body) * 8)
    for _ in range(8):
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"}]}")
    writer.close()
    assert await plane.metric("fourways_batch_requests_count") == 1
    assert await plane.metric("fourways_batch_requests_sum") == 8
    assert await plane.metric("fourways_model_seconds_count") == 1


async def test_a_bad_neighbour_fails_alone(tmp_path: Path) -> None:
    async with serving(configure(tmp_path, linear(), LINEAR, **PATIENT)) as plane:
        gate = Gate(plane)
        first = asyncio.create_task(plane.infer(*one(1)))
        assert await asyncio.to_thread(gate.entered.wait, PATIENT_SECONDS)
        wrong = [
            tensor("age", "INT32", [1, -3, 121]),
            tensor("spend", "FP32", [1, 2, 3]),
            tensor("rate", "FP32", [1, 2, 3]),
        ]
        asked = [one(5), wrong, one(6, 11), one(7)]
        tasks = [asyncio.create_task(plane.infer(*inputs)) for inputs in asked]
        await waiting(plane, 4)
        gate.open.set()
        answers = await asyncio.gather(first, *tasks)
        assert [answer.status_code for answer in answers] == [200, 200, 400, 400, 200]
        good = np.array([[5, 2, 1], [7, 2, 1]], np.float32)
        assert [scores(answers[1]), scores(answers[4])] == [[y] for y in expected(good)]
        said = answers[2].json()
        assert (said["field"], said["reason"], said["row"]) == ("age", "-3 is below 0", 1)
        assert [row["row"] for row in said["rows"]] == [1, 2]
        assert answers[3].json()["error"] == "rate: 11 is above 10 (row 0)"
        assert await plane.metric("fourways_batch_requests_count") == 2


async def test_a_request_the_model_fails_on_fails_alone(tmp_path: Path) -> None:
    lookup = onnx_bytes(
        [_node("Gather", ["table", "i"], ["y"])],
        [("i", 7, ["N"])],
        [("y", FLOAT, ["N"])],
        [("table", np.array([10, 20], np.float32))],
    )
    contract = {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "i", "type": "int64"}],
        "outputs": [{"name": "y", "type": "float32"}],
    }
    async with serving(configure(tmp_path, lookup, contract, **PATIENT)) as plane:
        gate = Gate(plane)
        tasks = [asyncio.create_task(plane.infer(tensor("i", "INT64", [0])))]
        assert await asyncio.to_thread(gate.entered.wait, PATIENT_SECONDS)
        tasks += [asyncio.create_task(plane.infer(tensor("i", "INT64", [i]))) for i in (1, 9, 0)]
        await waiting(plane, 3)
        gate.open.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.status_code for answer in answers] == [200, 200, 500, 200]
        assert "Gather" in answers[2].json()["error"]
        assert answers[2].headers["x-fourways-fault"] == "model"
        assert answers[1].json()["outputs"][0]["data"] == [20]
        assert await plane.metric("fourways_inference_failures_total") == 1


def _node(*args: Any) -> Any:
    from onnx import helper

    return helper.make_node(*args)


async def test_overload_is_turned_away_with_a_time_to_come_back(tmp_path: Path) -> None:
    config = configure(tmp_path, linear(), LINEAR, **PATIENT)
    async with serving(config, max_waiting=2) as plane:
        gate = Gate(plane)
        tasks = [asyncio.create_task(plane.infer(*one(1)))]
        assert await asyncio.to_thread(gate.entered.wait, PATIENT_SECONDS)
        tasks += [asyncio.create_task(plane.infer(*one(1))) for _ in range(2)]
        await waiting(plane, 2)
        refused = await plane.infer(*one(1))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        gate.open.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
        assert await plane.metric("fourways_inference_rejected_total") == 1


async def test_a_batch_has_at_most_the_rows_allowed(tmp_path: Path) -> None:
    config = configure(tmp_path, linear(), LINEAR, maxBatchRows=4, **PATIENT)
    async with serving(config) as plane:
        gate = Gate(plane)
        tasks = [asyncio.create_task(plane.infer(*three()))]
        assert await asyncio.to_thread(gate.entered.wait, PATIENT_SECONDS)
        tasks += [asyncio.create_task(plane.infer(*three())) for _ in range(3)]
        await waiting(plane, 3)
        gate.open.set()
        assert [scores(answer) for answer in await asyncio.gather(*tasks)] == [expected()] * 4
        assert await plane.metric("fourways_batch_rows_count") == 4
