"""Files that a manifest is written from: pickles, tokenizers, and files that crash a library."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fourways_cli.manifests import read_manifests
from fourways_runtime.errors import ModelNotLoadable
from fourways_runtime.scoring.golden import check_vectors, read_vectors
from fourways_runtime.scoring.model import load
from fourways_runtime.scoring.model.description import recognised
from fourways_runtime.scoring.model.text_model import reading_texts
from fourways_runtime.scoring.pipeline import Pipeline
from tests.kit import texts
from tests.kit.first_manifest import init, refused
from tests.kit.lazy import LazyModule

xgboost = LazyModule("xgboost")

pytestmark = [
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
    pytest.mark.filterwarnings("ignore:lbfgs failed to converge"),
]

TRAINED = pytest.mark.thorough
"""Of tests that train a model: the libraries take seconds to import."""


class Explosive:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_is_never_opened_and_the_way_out_is_named(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Explosive(tmp_path / "ran"), protocol))
    said = refused(tmp_path / "model.pkl", "-o", tmp_path / "m.yaml")
    assert "never opened" in said
    assert "skops.io.dump" in said
    assert "fourways convert" in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3)])
def test_a_compressed_joblib_file_is_recognised(compress: tuple[str, int], tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump(Explosive(tmp_path / "ran"), tmp_path / "model.joblib", compress=compress)
    with pytest.raises(ModelNotLoadable, match="joblib file: opening it can run any code"):
        recognised(tmp_path / "model.joblib")
    assert not (tmp_path / "ran").exists()


def exported(folder: Path, length: object = "L") -> Path:
    """Write a model of tokens with its tokenizer beside it, as exporters do."""
    (folder / "model.onnx").write_bytes(texts.classifier(length))
    texts.written(folder)
    return folder


def test_a_model_of_tokens_with_its_tokenizer_reads_texts(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    table = pa.table({"id": ["a", "b", "c"], "text": ["good film", "bad", "the end was long"]})
    pq.write_table(table, folder / "sample.parquet")
    manifest = folder / "m.yaml"
    init(folder, "--sample", folder / "sample.parquet", "--out", manifest)
    spec = yaml.safe_load(manifest.read_text())["spec"]
    (field,) = spec["contract"]["inputs"]
    assert (field["name"], field["type"]) == ("text", "string")
    assert field["tokens"] == {"maxLength": 64, "padToMultipleOf": 32}
    assert spec["contract"]["tokenizer"]["uri"] == "tokenizer.json"
    (read,) = read_manifests([manifest]).valid
    assert read.deployment is not None
    contract, model = read.deployment.spec.contract, read.deployment.spec.model
    loaded = load(folder / "model.onnx", model, threads=1)
    pipeline = Pipeline(contract, reading_texts(loaded, contract, folder / "tokenizer.json"))
    assert contract.golden_vectors is not None
    golden = Path(contract.golden_vectors.uri.removeprefix("file://"))
    check_vectors(pipeline, read_vectors(golden, contract), contract.golden_vectors)


@pytest.mark.parametrize(("length", "tokens"), [(12, {"maxLength": 12}), ("L", None)])
def test_a_model_of_tokens_says_how_many_it_takes(
    tmp_path: Path, length: object, tokens: object
) -> None:
    manifest = tmp_path / "m.yaml"
    init(exported(tmp_path, length) / "model.onnx", "--out", manifest)
    (field,) = yaml.safe_load(manifest.read_text())["spec"]["contract"]["inputs"]
    assert field["tokens"] == (tokens or {"maxLength": 512, "padToMultipleOf": 32})


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    assert "not a tokenizer.json" in refused(folder / "model.onnx", "--out", tmp_path / "m.yaml")


@TRAINED
def test_a_file_on_which_the_library_crashes_is_named(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    booster = xgboost.train({"max_depth": 2}, xgboost.DMatrix(rows, rows[:, 0]), 1)
    path = tmp_path / "m.json"
    booster.save_model(path)
    said = json.loads(path.read_text())
    tree = said["learner"]["gradient_booster"]["model"]["trees"][0]
    inner = tree["left_children"][0]
    assert inner > 0
    tree["left_children"][0] = tree["right_children"][0] = 2**30
    path.write_text(json.dumps(said))
    text = refused(path, "-o", tmp_path / "m.yaml")
    assert "its library crashed (signal 11): the file is damaged; save the model again" in text
    assert not (tmp_path / "m.yaml").exists()
