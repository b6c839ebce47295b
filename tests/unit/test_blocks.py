"""Blocks of columns: one input of the contract for hundreds of columns, alike in every mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml
from onnx import helper
from typer.testing import CliRunner

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_api.base import SKIP_RULES
from fourways_cli.main import app
from fourways_http import Request
from fourways_runtime.errors import ContractMismatch, GoldenMismatch, SourceError
from fourways_runtime.io import sources
from fourways_runtime.scoring.golden import check_vectors, read_vectors
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.single import RecordRefused, RecordScorer
from fourways_runtime.scoring.table_pipeline import TablePipeline
from fourways_runtime.workloads.gateway.events import EventReader
from tests.kit.models import Function
from tests.kit.serving_plane import configure, serving, tensor
from tools.kit.models import FLOAT, onnx_bytes

WIDTH = 300
NAMES = [f"pixel{at}" for at in range(WIDTH)]
WIDE: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [
        {"name": "pixels", "type": "float32", "columns": ["pixel{0..299}"], "range": {"max": 9}}
    ],
    "outputs": [{"name": "y", "type": "float32"}],
}
ROWS = np.arange(2 * WIDTH, dtype=np.float32).reshape(2, WIDTH) % 7
WEIGHTS = np.linspace(0, 1, WIDTH, dtype=np.float32)
WANTED = (ROWS * WEIGHTS).sum(axis=1)


def weighted() -> bytes:
    return onnx_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", FLOAT, ["N", WIDTH])],
        [("y", FLOAT, ["N", 1])],
        [("w", WEIGHTS[:, np.newaxis])],
    )


def model() -> Function:
    return Function(
        (Tensor("x", "float32", (None, WIDTH)),),
        (Tensor("y", "float32", (None, 1)),),
        lambda given: {"y": (given["x"] * WEIGHTS).sum(axis=1, keepdims=True)},
    )


def bound(schema: Any = WIDE) -> Pipeline:
    return Pipeline(Contract.model_validate(schema), model())


def test_columns_are_names_and_ranges_of_numbers() -> None:
    spec = {"name": "x", "type": "int64", "columns": ["a", "b{8..10}", "c{3..3}"]}
    (field,) = Contract.model_validate({**WIDE, "inputs": [spec]}).inputs
    assert field.column_names == ("a", "b8", "b9", "b10", "c3")
    assert (field.value_shape, field.elements) == ((5,), 1)


@pytest.mark.parametrize("format", ["Parquet", "CSV", "JSONLines"])
def test_a_table_has_each_column_under_its_own_name(format: str, tmp_path: Path) -> None:
    columns: dict[str, Any] = {"id": ["u", "v"]}
    columns |= {name: ROWS[:, at] for at, name in enumerate(NAMES)}
    table = pa.table(dict(reversed(columns.items())))
    path = tmp_path / "table"
    if format == "Parquet":
        pq.write_table(table, path)
    elif format == "CSV":
        pacsv.write_csv(table, path)
    else:
        path.write_bytes(b"\n".join(map(orjson.dumps, table.to_pylist())))
    source = BatchSource.model_validate(
        {"uri": f"file://{path}", "format": format}, context=SKIP_RULES
    )
    contract = Contract.model_validate(WIDE)
    opened = sources.open_table(source, contract, policy=FetchPolicy(), paths=Paths())
    found = [TablePipeline(bound()).score(chunk.batch, chunk.rows) for chunk in opened.chunks()]
    answers = [value for each in found for value in each.predictions.columns["y"]]
    np.testing.assert_allclose(answers, WANTED, rtol=1e-5)
    narrow = Contract.model_validate(
        {**WIDE, "inputs": [{"name": "x", "type": "float32", "columns": ["pixel{0..300}"]}]}
    )
    with pytest.raises(SourceError, match="pixel300 is missing"):
        list(sources.open_table(source, narrow, policy=FetchPolicy(), paths=Paths()).chunks())


async def test_a_request_sends_one_tensor_or_one_for_each_column(tmp_path: Path) -> None:
    async with serving(configure(tmp_path, weighted(), WIDE)) as plane:
        metadata = (await plane.client.get("/v2/models/churn")).json()
        flat = ROWS.reshape(-1).tolist()
        answers = [
            await plane.infer(tensor(name, "FP32", flat, [2, WIDTH]))
            for name in ("pixels", "x", "input")
        ]
        each = [tensor(name, "FP32", ROWS[:, at].tolist()) for at, name in enumerate(NAMES)]
        answers.append(await plane.infer(*each))
        old = await plane.client.post("/v1/models/churn:predict", json={"instances": ROWS.tolist()})
        high = [*flat[:-1], 10.0]
        refused = await plane.infer(tensor("pixels", "FP32", high, [2, WIDTH]))
        twice = await plane.infer(
            tensor("pixel0", "FP32", [0.0]), tensor("pixels", "FP32", flat[:WIDTH], [1, WIDTH])
        )
        short = await plane.infer(tensor("pixels", "FP32", [0.0], [1, 1]))
        document = await plane.client.get("/v2/models/churn/openapi.json")
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, WIDTH]}]
    for answer in answers:
        np.testing.assert_allclose(answer.json()["outputs"][0]["data"], WANTED, rtol=1e-5)
    np.testing.assert_allclose(old.json()["predictions"], WANTED, rtol=1e-5)
    assert "pixel299: 10 is above 9 (row 1)" in refused.json()["error"]
    assert "pixels holds columns that are given twice" in twice.json()["error"]
    assert f"must be [N, {WIDTH}] for pixels" in short.json()["error"]
    record = document.json()["components"]["schemas"]["Record"]["properties"]
    assert record["pixels"]["maxItems"] == WIDTH


async def test_a_block_beside_other_inputs(tmp_path: Path) -> None:
    schema = {
        **WIDE,
        "inputs": [
            {"name": "first", "type": "float32"},
            {"name": "rest", "type": "float32", "columns": ["pixel{1..299}"], "nullable": True},
        ],
    }
    async with serving(configure(tmp_path, weighted(), schema)) as plane:
        answer = await plane.infer(
            tensor("rest", "FP32", ROWS[:, 1:].tolist(), [2, WIDTH - 1]),
            tensor("first", "FP32", ROWS[:, 0].tolist()),
        )
    np.testing.assert_allclose(answer.json()["outputs"][0]["data"], WANTED, rtol=1e-5)


@pytest.mark.thorough
def test_devices_events_and_golden_vectors(tmp_path: Path) -> None:
    contract = Contract.model_validate(WIDE | {"goldenVectors": {"uri": "file:///g.jsonl"}})
    scorer = RecordScorer(contract, model())
    named = dict(zip(NAMES, ROWS[0].tolist(), strict=True))
    assert scorer.ask({"pixels": ROWS[0].tolist()}) == scorer.ask(named)
    with pytest.raises(RecordRefused, match="pixels: must be a list of 300 values"):
        scorer.ask({"pixels": [1.0]})
    with pytest.raises(RecordRefused, match="record: must be a mapping from names to values"):
        scorer.ask(ROWS[0].tolist())
    lines = [{"pixels": ROWS[0].tolist()}, dict(zip(NAMES, ROWS[1].tolist(), strict=True))]
    path = tmp_path / "golden.jsonl"
    path.write_bytes(
        b"\n".join(
            orjson.dumps({"inputs": inputs, "outputs": {"y": float(wanted)}})
            for inputs, wanted in zip(lines, WANTED, strict=True)
        )
    )
    assert contract.golden_vectors is not None
    check_vectors(bound(), read_vectors(path, contract), contract.golden_vectors)
    path.write_bytes(orjson.dumps({"inputs": {"pixels": [1]}, "outputs": {"y": 1}}))
    with pytest.raises(GoldenMismatch, match="pixels is not a list of 300 values"):
        read_vectors(path, contract)
    inputs = [
        tensor("id", "BYTES", ["u"]),
        tensor("pixels", "FP32", ROWS[0].tolist(), [1, WIDTH]),
    ]
    reader = EventReader(contract, 10, 100_000)
    request = Request(b"POST", b"/", [], orjson.dumps({"inputs": inputs}))
    assert orjson.loads(reader.events(reader.read(request), ["u"])["u"]) == {"id": "u", **named}


def test_a_column_listed_twice_is_refused() -> None:
    with pytest.raises(ContractMismatch, match="column pixel1 is listed twice"):
        bound({**WIDE, "inputs": [*WIDE["inputs"], {"name": "pixel1", "type": "float32"}]})


def test_init_writes_a_block_for_a_wide_sample(tmp_path: Path) -> None:
    (tmp_path / "wide.onnx").write_bytes(weighted())
    onnx.load(tmp_path / "wide.onnx")
    columns = {"id": ["u", "v"], **{name: ROWS[:, at] for at, name in enumerate(NAMES)}}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    manifest = tmp_path / "m.yaml"
    arguments = ["init", tmp_path / "wide.onnx", "--sample", tmp_path / "t.parquet", "-o", manifest]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    (field,) = yaml.safe_load(manifest.read_text())["spec"]["contract"]["inputs"]
    assert field == {"name": "columns", "type": "float32", "columns": ["pixel{0..299}"]}
    golden = orjson.loads((tmp_path / "wide.golden.jsonl").read_bytes().splitlines()[0])
    assert golden["inputs"]["pixel299"] == ROWS[0, 299]
