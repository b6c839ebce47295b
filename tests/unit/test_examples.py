"""The examples are what they say: valid manifests, pinned files, models that answer as recorded.

Deliberately apart from the runtime's pipeline: what is asked here is whether the files are right,
with as little code as possible between them and onnxruntime.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from fourways_api import ModelDeployment, check, load_documents, parse

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLAIM = "pvc://fourways-examples/"
NAMES = ("churn", "sales-forecast", "file-type")
COMMITTED_LIMIT = 300_000
MAGIKA_MODEL = "magika/models/standard_v3_3/model.onnx"


def deployment(name: str) -> ModelDeployment:
    (document,) = load_documents((EXAMPLES / f"{name}.yaml").read_text("utf-8"))
    return parse(document)


def located(uri: str) -> Path:
    """Return the file a URI stands for on this machine; magika's model from its package."""
    file = EXAMPLES / "artifacts" / uri.removeprefix(CLAIM)
    made = uri.endswith("file-type/model.onnx")
    return magika_model() if made and not file.is_file() else file


def magika_model() -> Path:
    try:
        return Path(str(distribution("magika").locate_file(MAGIKA_MODEL)))
    except PackageNotFoundError:
        pytest.skip("the package magika is not installed")


def digest(file: Path) -> str:
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def vectors(name: str) -> list[dict[str, dict[str, Any]]]:
    golden = deployment(name).spec.contract.golden_vectors
    assert golden is not None
    return [json.loads(line) for line in located(golden.uri).read_text("utf-8").splitlines()]


def test_every_manifest_is_listed() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.yaml")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_manifest_is_valid_and_batch(name: str) -> None:
    found = deployment(name)
    check(found)
    assert found.metadata.name == name
    assert found.spec.choice().mode == "batch"


@pytest.mark.parametrize("name", NAMES)
def test_digests_are_the_files(name: str) -> None:
    spec = deployment(name).spec
    golden = spec.contract.golden_vectors
    assert golden is not None
    assert golden.digest == digest(located(golden.uri))
    assert spec.model.digest == digest(located(spec.model.uri))


@pytest.mark.parametrize("name", NAMES)
def test_golden_vectors_name_the_contract_s_fields(name: str) -> None:
    contract = deployment(name).spec.contract
    found = vectors(name)
    assert len(found) == 20
    for vector in found:
        assert set(vector["inputs"]) == {field.name for field in contract.inputs}
        assert set(vector["outputs"]) == {field.name for field in contract.outputs}


@pytest.mark.parametrize("name", NAMES)
def test_model_answers_the_golden_vectors(name: str) -> None:
    spec = deployment(name).spec
    golden = spec.contract.golden_vectors
    assert golden is not None
    found = vectors(name)
    session = onnxruntime.InferenceSession(located(spec.model.uri))
    named = [output.name for output in session.get_outputs()]
    raw = dict(zip(named, session.run(None, TENSORS[name](found)), strict=True))
    for row, vector in enumerate(found):
        for output in spec.contract.outputs:
            answer = raw[output.tensor or output.name][row]
            if output.column is not None:
                answer = answer[output.column]
            if output.reduce:
                answer = {"ArgMax": np.argmax, "Max": np.max}[output.reduce](answer)
            wanted = vector["outputs"][output.name]
            if output.categories:
                assert output.categories[int(answer)] == wanted, (row, output.name)
            else:
                allowed = golden.absolute_tolerance + golden.relative_tolerance * abs(wanted)
                assert abs(float(answer) - wanted) <= allowed, (row, output.name)


def churn_tensors(found: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    # A tensor an input, of one column each.
    return {
        name: np.array(
            [[vector["inputs"][name]] for vector in found],
            dtype=object if name == "cohort" else np.float32,
        )
        for name in found[0]["inputs"]
    }


def sales_tensors(found: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    # One tensor, whose columns are the contract's inputs in order.
    order = [field.name for field in deployment("sales-forecast").spec.contract.inputs]
    rows = [[vector["inputs"][name] for name in order] for vector in found]
    return {"features": np.array(rows, np.float32)}


def file_tensors(found: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    return {"bytes": np.array([vector["inputs"]["content"] for vector in found], np.int32)}


TENSORS = {"churn": churn_tensors, "sales-forecast": sales_tensors, "file-type": file_tensors}


@pytest.mark.parametrize("name", ["churn", "sales-forecast"])
def test_source_has_the_contract_s_columns_and_distinct_keys(name: str) -> None:
    spec = deployment(name).spec
    assert spec.batch is not None
    file = located(spec.batch.source.uri)
    table = pc.read_csv(file) if spec.batch.source.format == "CSV" else pq.read_table(file)
    assert {spec.contract.entity_key.name, *(f.name for f in spec.contract.inputs)} == set(
        table.column_names
    )
    keys = table[spec.contract.entity_key.name].to_pylist()
    assert len(set(keys)) == len(keys)


def test_rows_outside_the_churn_contract_are_few_enough_to_publish() -> None:
    spec = deployment("churn").spec
    assert spec.batch is not None
    assert spec.batch.max_rejects == "1%"
    table = pq.read_table(located(spec.batch.source.uri))
    assert table.num_rows == 2357
    unpaid = sum(spend <= 0 for spend in table["spend"].to_pylist())
    assert unpaid == 8
    # Once-only customers: missing, and allowed to be.
    assert any(gap is None or math.isnan(gap) for gap in table["mean_gap_days"].to_pylist())


def test_committed_files_are_small() -> None:
    made_here = {"file-type/model.onnx", "file-type/source.parquet"}
    folder = EXAMPLES / "artifacts"
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in made_here
    }
    assert max(sizes.values()) < COMMITTED_LIMIT
    assert sum(sizes.values()) < 1_000_000


def prepare(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "prepare.py"), "--artifacts", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_prepare_completes_the_folder_and_is_idempotent(tmp_path: Path) -> None:
    magika_model()  # skips without the package
    folder = tmp_path / "artifacts"
    ignore = shutil.ignore_patterns("model.onnx", "source.parquet")
    shutil.copytree(EXAMPLES / "artifacts", folder)
    shutil.rmtree(folder / "file-type")
    shutil.copytree(EXAMPLES / "artifacts/file-type", folder / "file-type", ignore=ignore)

    done = prepare(folder)
    assert done.returncode == 0, done.stderr
    made = {name: digest(folder / "file-type" / name) for name in ("model.onnx", "source.parquet")}
    table = pq.read_table(folder / "file-type/source.parquet")
    assert table.num_rows > 100
    assert {len(content) for content in table["content"].to_pylist()} == {2048}

    assert prepare(folder).returncode == 0
    assert made == {name: digest(folder / "file-type" / name) for name in made}


def test_prepare_names_a_file_that_is_not_the_pinned_one(tmp_path: Path) -> None:
    magika_model()
    folder = tmp_path / "artifacts"
    shutil.copytree(EXAMPLES / "artifacts", folder)
    with (folder / "churn/model.onnx").open("ab") as file:
        file.write(b"x")

    done = prepare(folder)
    assert done.returncode == 1
    assert "churn/model.onnx" in done.stderr
    assert "churn.yaml pins" in done.stderr
