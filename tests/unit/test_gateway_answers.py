"""What the gateway answers, over real sockets."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.gateway_plane import COMPUTED, DIGEST, GRID, Running, asking, contract, run, running
from tests.kit.waiting import until_async


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as plane:
        yield plane


async def is_answered(plane: Running) -> bool:
    return (await plane.infer("churn", asking("c1")))[0] == 200


async def test_answers_in_the_protocols_terms(plane: Running) -> None:
    status, answer = await plane.infer("churn", asking("c3", "c1", id="q-1"))
    parameters = answer.pop("parameters")
    assert status == 200
    assert answer == {
        "id": "q-1",
        "model_name": "churn",
        "model_version": "7",
        "outputs": [
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.75, 0.25]},
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["l3", "l1"]},
            {"name": "ok", "datatype": "BOOL", "shape": [2], "data": [False, False]},
        ],
    }
    assert (parameters["run"], parameters["digest"]) == ("run-7", DIGEST)
    assert abs(datetime.fromisoformat(parameters["computed_at"]) - COMPUTED) < timedelta(seconds=1)
    age = (datetime.now(UTC) - COMPUTED).total_seconds()
    assert parameters["age_seconds"] == pytest.approx(age, abs=5)


async def test_whole_number_keys_and_shaped_outputs(plane: Running) -> None:
    tensor = {"name": "entity_key", "datatype": "INT64", "shape": [2, 1], "data": [[5], [-1]]}
    status, answer = await plane.infer("grid", {"inputs": [tensor]})
    assert status == 200
    assert answer["outputs"] == [
        {
            "name": "grid",
            "datatype": "FP64",
            "shape": [2, 2, 3],
            "data": [5, 1, 2, 3, 4, 5, -1, 1, 2, 3, 4, 5],
        },
        {"name": "n", "datatype": "INT64", "shape": [2], "data": [5, -1]},
    ]


async def test_only_the_outputs_asked_for_in_the_contracts_order(plane: Running) -> None:
    wanted = [{"name": "ok"}, {"name": "score", "parameters": {"binary_data": False}}]
    _, answer = await plane.infer("churn", asking("c1", outputs=wanted))
    assert [output["name"] for output in answer["outputs"]] == ["score", "ok"]
    status, answer = await plane.infer("churn", asking("c1", outputs=[{"name": "nope"}]))
    assert (status, answer["field"]) == (400, "outputs[0].name")


async def test_a_missing_key_is_named(plane: Running) -> None:
    status, answer = await plane.infer("churn", asking("c1", "nobody", "c2", "no one"))
    assert status == 404
    assert answer == {"error": "no prediction for 2 of 4 keys", "missing": ["nobody", "no one"]}
    _, answer = await plane.infer("churn", asking(*(f"x{i}" for i in range(150))))
    assert answer["missing"] == [f"x{i}" for i in range(100)]


async def test_allow_missing_answers_what_there_is(plane: Running) -> None:
    allow = {"allow_missing": True}
    status, answer = await plane.infer("churn", asking("c1", "nobody", "c2", parameters=allow))
    assert status == 200
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["score"] == {
        "name": "score",
        "datatype": "FP32",
        "shape": [2],
        "data": [0.25, 0.5],
    }
    assert outputs["found"] == {
        "name": "found",
        "datatype": "BOOL",
        "shape": [3],
        "data": [True, False, True],
    }
    status, answer = await plane.infer("churn", asking("nobody", parameters=allow))
    assert (status, answer["outputs"][0]["shape"]) == (200, [0])


async def test_versions(plane: Running) -> None:
    assert (await plane.infer("churn", asking("c1"), "/versions/7"))[0] == 200
    for method in (
        plane.infer("churn", asking("c1"), "/versions/6"),
        plane.get("/v2/models/churn/versions/6"),
        plane.get("/v2/models/churn/versions/6/ready"),
    ):
        status, answer = await method
        assert (status, answer["error"]) == (404, "version 6 is not published; 7 is")


async def test_predictions_for_people(plane: Running) -> None:
    status, answer = await plane.get("/predictions/churn/%C3%A4%2F%20b%252F")
    assert status == 200
    assert answer["key"] == "ä/ b%2F"
    assert answer["outputs"] == {"score": 9.0, "label": "odd", "ok": True}
    assert (answer["version"], answer["run"], answer["digest"]) == ("7", "run-7", DIGEST)
    assert (await plane.get("/predictions/grid/5"))[1]["outputs"]["n"] == 5


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/predictions/churn/nobody", 404, "no prediction for that key"),
        ("/predictions/nothing/c1", 404, "nothing is published for nothing: no such deployment"),
        ("/predictions/No_Name/c1", 404, "nothing is published for No_Name"),
        ("/predictions/grid/five", 400, "key: must be a whole number: customer is int64"),
        ("/predictions/grid/9223372036854775808", 400, "key: does not fit 64 bits"),
        ("/predictions/churn/a%00b", 400, "key: must not hold a NUL character"),
        ("/v2/models/nothing", 404, "nothing is published for nothing"),
    ],
)
async def test_what_is_not_there_is_said_clearly(
    plane: Running, path: str, status: int, text: str
) -> None:
    got, answer = await plane.get(path)
    assert got == status
    assert answer["error"].startswith(text)


async def test_metadata_and_index(plane: Running) -> None:
    assert (await plane.get("/v2"))[1]["name"] == "fourways"
    assert (await plane.get("/v2/health/live"))[1] == {"live": True}
    _, model = await plane.get("/v2/models/grid")
    assert model == {
        "name": "grid",
        "versions": ["7"],
        "platform": "fourways_batch",
        "inputs": [
            {
                "name": "customer",
                "datatype": "INT64",
                "shape": [-1],
                "parameters": {"entity_key": True},
            }
        ],
        "outputs": [
            {"name": "grid", "datatype": "FP64", "shape": [-1, 2, 3]},
            {"name": "n", "datatype": "INT64", "shape": [-1]},
        ],
    }
    _, index = await plane.get("/")
    churn = index["deployments"][0]
    assert churn["links"]["prediction"] == "/predictions/churn/{customer}"
    assert (await plane.client.get(churn["links"]["model"])).status_code == 200


async def test_the_models_are_listed(plane: Running) -> None:
    assert (await plane.get("/v2/models"))[1] == {"models": ["churn", "grid"]}
    listed = (await plane.client.post("/v2/repository/index", json={})).json()
    assert listed[0] == {"name": "churn", "version": "7", "state": "READY", "reason": ""}


async def test_keys_and_outputs_may_be_binary(plane: Running) -> None:
    key = {"name": "customer", "datatype": "BYTES", "shape": [2]}
    data = b"".join(struct.pack("<I", len(text)) + text for text in (b"c3", b"c1"))
    head = orjson.dumps(
        {
            "inputs": [{**key, "parameters": {"binary_data_size": len(data)}}],
            "parameters": {"binary_data_output": True},
        }
    )
    answer = await plane.client.post(
        "/v2/models/churn/infer",
        content=head + data,
        headers={"inference-header-content-length": str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    outputs = orjson.loads(answer.content[:length])["outputs"]
    assert [output["parameters"]["binary_data_size"] for output in outputs] == [8, 12, 2]
    assert answer.content[length:] == (
        struct.pack("<2f", 0.75, 0.25) + b"\2\0\0\0l3\2\0\0\0l1" + b"\0\0"
    )


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_a_body_may_be_compressed(
    plane: Running, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    answer = await plane.client.post(
        "/v2/models/churn/infer",
        content=pack(orjson.dumps(asking("c1"))),
        headers={"content-encoding": encoding},
    )
    assert answer.status_code == 200, answer.text


async def test_a_request_for_many_keys_is_answered(plane: Running) -> None:
    plane.store.rows["churn"] |= {
        f"k{at}": {"score": 0.5, "label": "x" * 200, "ok": True} for at in range(990)
    }
    keys = [f"k{at}" + "." * 200 for at in range(500)] + [f"k{at}" for at in range(490)]
    wanted = {**asking(*keys), "parameters": {"allow_missing": True}}
    status, answer = await plane.infer("churn", wanted)
    assert status == 200
    assert answer["outputs"][0]["shape"] == [490]


async def test_a_new_run_is_answered_from_at_once(plane: Running) -> None:
    assert (await plane.infer("churn", asking("c1")))[1]["model_version"] == "7"
    changed = contract("string", ("score", "float64", []))
    plane.store.runs["churn"] = run(changed, "8")
    _, answer = await plane.infer("churn", asking("c1"))
    assert answer["model_version"] == "8"
    assert [output["datatype"] for output in answer["outputs"]] == ["FP64"]
    del plane.store.runs["churn"]
    assert (await plane.infer("churn", asking("c1")))[0] == 404
    plane.store.runs["churn"] = run(changed, "9")
    await until_async(lambda: is_answered(plane), "the run 9 answers")


async def test_a_deployment_replaced_by_one_with_other_keys(plane: Running) -> None:
    assert (await plane.infer("churn", asking("c1")))[0] == 200
    plane.store.runs["churn"] = run(GRID, "8")
    plane.store.rows["churn"] = plane.store.rows["grid"]
    assert (await plane.infer("churn", asking("c1")))[0] == 503
    status, answer = await plane.infer("churn", asking("c1"))
    assert (status, answer["field"]) == (400, "inputs[0].datatype")


async def test_metrics(plane: Running) -> None:
    await plane.infer("churn", asking("c1", "c2"))
    await plane.infer("churn", asking("c1", "nobody"))
    await plane.client.get("/nowhere")
    text = (await plane.client.get("/metrics")).text
    samples = {
        (
            sample.name,
            *(value for _, value in sorted(sample.labels.items(), reverse=True)),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    route = "/v2/models/{deployment}/infer"
    assert samples["fourways_http_requests_total", route, "200"] == 1
    assert samples["fourways_http_requests_total", route, "404"] == 1
    assert samples["fourways_http_requests_total", "none", "404"] == 1
    assert samples["fourways_http_request_duration_seconds_count", route] == 2
    assert samples["fourways_lookup_keys_total", "churn"] == 4
    assert samples["fourways_lookup_misses_total", "churn"] == 1
    assert samples["fourways_prediction_age_seconds", "grid"] >= 60
    assert "nobody" not in text
