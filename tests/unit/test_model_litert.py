"""LiteRT models: what is loaded and answered, in every mode alike, and what is refused."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import yaml
from typer.testing import CliRunner

from fourways_api import Contract
from fourways_api.model import ModelReference
from fourways_cli.main import app
from fourways_runtime.errors import ContractMismatch, ModelNotLoadable
from fourways_runtime.scoring import model as models
from fourways_runtime.scoring.model import Tensor
from fourways_runtime.scoring.model.description import recognised
from fourways_runtime.scoring.model.row_by_row import RowByRow
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.single import RecordScorer
from fourways_runtime.scoring.table_pipeline import TablePipeline
from tests.kit.litert import INT32, STRING, WEIGHTS, custom, dense, identity
from tests.kit.serving_plane import configure, serving, tensor

ROWS = np.array([[1, 1, 1], [2, 0, 0], [0, 0, 8]], np.float32)
WANTED = ROWS @ WEIGHTS.T + 1
CONTRACT: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": name, "type": "float32"} for name in "abc"],
    "outputs": [{"name": "y", "type": "float32"}],
}


def load(raw: bytes, folder: Path) -> models.Model:
    path = folder / "model"
    path.write_bytes(raw)
    reference = ModelReference(uri="file:///m.tflite", version="1", format="litert")
    return models.load(path, reference, threads=1)


def test_a_model_is_recognised_and_answers_batches_of_any_size(tmp_path: Path) -> None:
    model = load(dense(), tmp_path)
    assert recognised(tmp_path / "model") == "litert"
    assert model.inputs == (Tensor("x", "float32", (None, 3)),)
    assert model.outputs == (Tensor("y", "float32", (None, 1)),)
    for rows in (1, 3, 2, 3):
        answer = model.predict({"x": ROWS[:rows], "unread": ROWS})
        np.testing.assert_allclose(answer["y"], WANTED[:rows])


def test_without_a_signature_the_tensors_have_their_own_names(tmp_path: Path) -> None:
    model = load(dense(signature=False), tmp_path)
    assert [each.name for each in model.inputs] == ["x"]
    assert [each.name for each in model.outputs] == ["StatefulPartitionedCall"]


def test_a_batch_of_one_is_called_for_each_record(tmp_path: Path) -> None:
    model = load(dense(batch=1), tmp_path)
    assert isinstance(model, RowByRow)
    np.testing.assert_allclose(model.predict({"x": ROWS})["y"], WANTED)


def test_threads_take_turns(tmp_path: Path) -> None:
    model = load(dense(), tmp_path)

    def ask(seed: int) -> bool:
        rows = np.random.default_rng(seed).normal(size=(1 + seed % 5, 3)).astype(np.float32)
        answer = model.predict({"x": rows})["y"]
        return bool(np.allclose(answer, rows @ WEIGHTS.T + 1, atol=1e-5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))


async def test_a_table_a_request_and_a_record_get_the_same_answers(tmp_path: Path) -> None:
    contract = Contract.model_validate(CONTRACT)
    pipeline = Pipeline(contract, load(dense(), tmp_path))
    columns = dict(zip("abc", ROWS.T, strict=True))
    batch = pa.RecordBatch.from_pydict({"id": ["u", "v", "w"], **columns})
    table = TablePipeline(pipeline).score(batch).predictions.columns["y"].tolist()
    config = configure(
        tmp_path,
        dense(),
        CONTRACT,
        model={"uri": "pvc://data/model.onnx", "version": "v1", "format": "litert"},
    )
    async with serving(config) as plane:
        answer = await plane.infer(
            *[tensor(name, "FP32", values.tolist()) for name, values in columns.items()]
        )
        metadata = (await plane.client.get("/v2/models/churn")).json()
    assert answer.json()["outputs"][0]["data"] == table == WANTED.reshape(-1).tolist()
    assert metadata["platform"] == "fourways_litert"
    scorer = RecordScorer(contract, load(dense(), tmp_path))
    assert scorer.ask(dict(zip("abc", ROWS[0].tolist(), strict=True))) == {"y": table[0]}


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    model = load(identity(INT32), tmp_path)
    assert model.inputs == (Tensor("x", "int32", (None, 2)),)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        pytest.param(dense()[:300], "LiteRT cannot load the model", id="truncated"),
        pytest.param(b"\x1c\0\0\0TFL3" + b"\xff" * 9, "LiteRT cannot load the model", id="damaged"),
        pytest.param(custom(), "convert it with TFLITE_BUILTINS only", id="custom"),
        pytest.param(identity(STRING), "LiteRT|is of type", id="text"),
        pytest.param(b"not a model", "LiteRT cannot load the model", id="text file"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(
    raw: bytes, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotLoadable, match=told):
        load(raw, tmp_path)


def test_damaged_files_are_refused_or_answer_and_never_end_the_process(tmp_path: Path) -> None:
    raw, chance = dense(), random.Random(7)
    refused = 0
    for _ in range(150):
        damaged = bytearray(raw)
        for _ in range(chance.choice([1, 2, 4])):
            damaged[chance.randrange(8, len(raw))] = chance.randrange(256)
        with suppress(ModelNotLoadable):
            load(bytes(damaged), tmp_path)
            continue
        refused += 1
    assert refused > 50


def test_inputs_of_another_shape_are_the_contracts_fault(tmp_path: Path) -> None:
    model = load(dense(), tmp_path)
    with pytest.raises(ContractMismatch, match=r"rejected its inputs: float32\[2, 5\]"):
        model.predict({"x": np.zeros((2, 5), np.float32)})
    np.testing.assert_allclose(model.predict({"x": ROWS})["y"], WANTED)
    with pytest.raises(ContractMismatch, match="'x', which was not given"):
        model.predict({})


def test_another_format_is_named_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(dense())
    reference = ModelReference(uri="file:///m.onnx", version="1")
    with pytest.raises(ModelNotLoadable, match=r"set spec\.model\.format to litert"):
        models.load(tmp_path / "m", reference, threads=1)


def test_init_needs_no_edit(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(dense())
    columns = {"id": ["u", "v", "w"], **dict(zip("abc", ROWS.T, strict=True))}
    pacsv.write_csv(pa.table(columns), tmp_path / "t.csv")
    manifest = tmp_path / "m.yaml"
    arguments = ["init", tmp_path / "m.tflite", "--sample", tmp_path / "t.csv", "-o", manifest]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    spec = yaml.safe_load(manifest.read_text())["spec"]
    assert spec["model"]["format"] == "litert"
    assert [each["name"] for each in spec["contract"]["inputs"]] == ["a", "b", "c"]
