"""The OpenAPI document of a deployment: valid, as strict as the contract, its examples work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from fourways_api import Contract
from fourways_runtime.v2.examples import example_tensor, examples_of
from fourways_runtime.workloads.gateway.access import ACCESS
from tests.kit.gateway_plane import running
from tests.kit.lazy import LazyModule
from tests.kit.serving_plane import MIXED, configure, mixed, serving
from tools.installation import ROOT
from tools.kit.models import LINEAR, WEIGHTS, linear

jsonschema = LazyModule("jsonschema")
openapi_spec_validator = LazyModule("openapi_spec_validator")

SCORE = float((WEIGHTS.reshape(-1) * [33, 0.5, 1.25]).sum())


def judged(document: dict[str, Any], schema: str) -> Any:
    return jsonschema.Draft202012Validator({**document, "$ref": f"#/components/schemas/{schema}"})


@pytest.mark.parametrize(("raw", "contract"), [(linear(), LINEAR), (mixed(), MIXED)])
async def test_the_examples_are_answered(
    tmp_path: Path, raw: bytes, contract: dict[str, Any]
) -> None:
    async with serving(configure(tmp_path, raw, contract, timeoutSeconds=30)) as plane:
        document = (await plane.client.get("/v2/models/churn/openapi.json")).json()
        openapi_spec_validator.validate(document)
        for path, methods in document["paths"].items():
            content = methods["post"]["requestBody"]["content"]["application/json"]
            answer = await plane.client.post(path, json=content["example"])
            assert answer.status_code == 200, answer.text
            schema = methods["post"]["responses"]["200"]["content"]["application/json"]["schema"]
            judged(document, schema["$ref"].rpartition("/")[2]).validate(answer.json())


async def test_the_examples_are_a_golden_vector(tmp_path: Path) -> None:
    record = {"age": 33, "spend": 0.5, "rate": 1.25}
    golden = tmp_path / "golden.jsonl"
    golden.write_bytes(orjson.dumps({"inputs": record, "outputs": {"score": SCORE}}))
    contract = {**LINEAR, "goldenVectors": {"uri": golden.as_uri()}}
    async with serving(configure(tmp_path, linear(), contract, timeoutSeconds=30)) as plane:
        document = (await plane.client.get("/v2/models/churn/openapi.json")).json()
        found = {
            path: methods["post"]["requestBody"]["content"]["application/json"]["example"]
            for path, methods in document["paths"].items()
        }
        assert found["/v1/models/churn:predict"] == {"instances": [record]}
        tensors = found["/v2/models/churn/infer"]["inputs"]
        assert [tensor["data"] for tensor in tensors] == [[33], [0.5], [1.25]]
        answer = await plane.client.post("/v2/models/churn/infer", json={"inputs": tensors})
        assert answer.json()["outputs"][0]["data"] == [pytest.approx(SCORE)]


def test_a_value_that_is_missing_or_long_is_made_up() -> None:
    inputs = [
        {"name": "a", "type": "float32", "nullable": True},
        {"name": "words", "type": "string"},
        {"name": "grid", "type": "float32", "shape": [-1, 2]},
        {"name": "lags", "type": "float32", "columns": ["x{0..2}"]},
    ]
    contract = Contract.model_validate({**LINEAR, "inputs": inputs})
    known = {"a": None, "words": "x" * 3000, "grid": [[1, 2], [3, 4]], "x0": 7, "x1": 8, "x2": 9}
    shown = examples_of(contract, known)
    assert shown == {"a": 0, "words": "TEXT", "grid": [[1, 2], [3, 4]], "lags": [7, 8, 9]}
    grid = example_tensor(contract.inputs[2], shown["grid"])
    assert (grid["shape"], grid["data"]) == ([1, 2, 2], [[[1, 2], [3, 4]]])
    assert examples_of(contract, {"x0": 7})["lags"] == [0, 0, 0]


async def test_the_schema_refuses_what_the_server_refuses(tmp_path: Path) -> None:
    good = {"age": 33, "spend": 0.5, "rate": 1.5}
    async with serving(configure(tmp_path, linear(), LINEAR, timeoutSeconds=30)) as plane:
        document = (await plane.client.get("/v2/models/churn/openapi.json")).json()
        record = judged(document, "Record")
        record.validate(good)
        for change in ({"age": 121}, {"age": "x"}, {"age": None}, {"age": 1.5}, {"agee": 1}):
            bad = {**good, **change}
            assert not record.is_valid(bad)
            answer = await plane.client.post("/v1/models/churn:predict", json={"instances": [bad]})
            assert answer.status_code == 400, bad
        assert not record.is_valid({"age": 1})


async def test_a_batch_deployment_is_asked_by_key(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        status, document = await gateway.get("/v2/models/churn/openapi.json")
        assert status == 200
        openapi_spec_validator.validate(document)
        assert document["info"]["version"] == "7"
        assert list(document["components"]["schemas"]["Record"]["properties"]) == ["customer"]
        status, found = await gateway.get("/predictions/churn/c1")
        lookup = document["paths"]["/predictions/churn/{key}"]["get"]
        schema = lookup["responses"]["200"]["content"]["application/json"]["schema"]
        whole = {**document, **schema}
        jsonschema.Draft202012Validator(whole).validate(found)
        assert (await gateway.get("/v2/models/none/openapi.json"))[0] == 404


def test_the_reference_of_the_http_api_has_every_path_with_its_scope() -> None:
    page = (ROOT / "docs" / "reference" / "http.md").read_text("utf-8")
    told = {
        (method.encode(), path): scope.strip(" `") or None
        for paths, scope in re.findall(r"^\| (`(?:GET|POST) /.*?) \|([^|]*)\|", page, re.MULTILINE)
        for method, path in re.findall(r"`(GET|POST) ([^`]+)`", paths)
    }
    of_pages = {(b"GET", "/assets/page.css"), (b"GET", "/assets/page.js")}
    twice = {(b"GET", "/bundles/{deployment}")}  # as with a slash at its end
    assert told == {key: verb for key, verb in ACCESS.items() if key not in of_pages | twice}
