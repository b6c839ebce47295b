"""A model file and a sample become a manifest that is valid and whose golden vectors hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from fourways_api.training_profile import read_profile
from fourways_cli.main import app
from fourways_runtime.errors import ModelNotLoadable
from fourways_runtime.scoring.model import FORMATS
from fourways_runtime.scoring.model.description import recognised
from tests.kit.cli import CliRunner
from tests.kit.first_manifest import init, proven, refused
from tests.kit.lazy import LazyModule
from tools.installation import ROOT

lightgbm = LazyModule("lightgbm")
linear_model = LazyModule("sklearn.linear_model")
preprocessing = LazyModule("sklearn.preprocessing")
skops_io = LazyModule("skops.io")
xgboost = LazyModule("xgboost")

pytestmark = [
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
    pytest.mark.filterwarnings("ignore:lbfgs failed to converge"),
]

TRAINED = pytest.mark.thorough
"""Of tests that train a model: the libraries take seconds to import."""

CHURN = ROOT / "examples" / "artifacts" / "churn"


@pytest.fixture(scope="module")
def wine() -> Any:
    return LazyModule("sklearn.datasets").load_wine(as_frame=True)


@pytest.fixture
def table(wine: Any, tmp_path: Path) -> Path:
    """The wines with a key before and the target after the columns that the models read."""
    frame = wine.data.copy()
    frame.insert(0, "bottle", [f"b{at:03}" for at in range(len(frame))])
    frame["target"] = wine.target
    frame.to_csv(tmp_path / "wine.csv", index=False)
    return tmp_path / "wine.csv"


@pytest.fixture(params=["skops", "xgboost.json", "xgboost.ubj", "lightgbm"])
def model(request: pytest.FixtureRequest, wine: Any, tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    if request.param == "skops":
        scaled = LazyModule("sklearn.pipeline").make_pipeline(
            preprocessing.StandardScaler(), linear_model.LogisticRegression()
        )
        skops_io.dump(scaled.fit(wine.data, wine.target), path)
    elif request.param == "lightgbm":
        columns = wine.data.rename(columns=lambda name: name.replace("/", "_"))
        trees = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(columns, wine.target)
        trees.booster_.save_model(path)
    else:
        path = tmp_path / f"model.{request.param.partition('.')[2]}"
        xgboost.XGBClassifier(n_estimators=3).fit(wine.data, wine.target).save_model(path)
    return path


@TRAINED
def test_a_model_that_names_its_columns_needs_no_edit(model: Path, table: Path) -> None:
    manifest = table.with_name("m.yaml")
    init(model, "--sample", table, "-o", manifest, "--name", "wines")
    contract = proven(manifest).spec.contract
    assert (contract.entity_key.name, contract.entity_key.type) == ("bottle", "string")
    assert len(contract.inputs) == 13
    assert contract.inputs[0].name == "alcohol"
    assert contract.inputs[11].name == "od280_od315_of_diluted_wines"
    assert contract.inputs[0].range is not None
    assert contract.inputs[0].range.min == 0
    assert contract.golden_vectors is not None
    golden = (table.with_name("wines.golden.jsonl")).read_text().splitlines()
    assert len(golden) == 20


@TRAINED
def test_without_a_sample_the_manifest_says_what_the_model_says(model: Path) -> None:
    manifest = model.with_name("m.yaml")
    init(model, "-o", manifest)
    contract = proven(manifest).spec.contract
    assert len(contract.inputs) == 13
    assert contract.golden_vectors is None
    assert "TO DECIDE: known inputs with their outputs" in manifest.read_text()


def test_the_example_model_with_text_and_missing_values(tmp_path: Path) -> None:
    manifest = tmp_path / "churn.yaml"
    init(CHURN / "model.onnx", "--sample", CHURN / "source.parquet", "-o", manifest)
    contract = proven(manifest).spec.contract
    fields = {field.name: field for field in contract.inputs}
    assert contract.entity_key.name == "customer_id"
    assert fields["cohort"].categories == ("1997-01", "1997-02", "1997-03")
    assert fields["mean_gap_days"].nullable
    assert not fields["orders"].nullable
    assert [output.name for output in contract.outputs] == ["label", "probabilities"]


def test_a_sample_gives_a_training_profile_that_finds_no_drift_in_itself(tmp_path: Path) -> None:
    manifest = tmp_path / "churn.yaml"
    said = init(CHURN / "model.onnx", "--sample", CHURN / "source.parquet", "-o", manifest)
    assert f"{tmp_path / 'model.profile.json'}: written beside it" in said
    deployment = proven(manifest)
    assert deployment.spec.monitoring is not None
    path = tmp_path / "model.profile.json"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert deployment.spec.monitoring.profile.digest == f"sha256:{digest}"
    profile = read_profile(path.read_bytes(), deployment.spec.contract)
    fields = {field.name: field for field in profile.inputs}
    assert set(fields) == {field.name for field in deployment.spec.contract.inputs}
    assert set(fields["cohort"].labels or ()) == {"1997-01", "1997-02", "1997-03"}
    assert fields["mean_gap_days"].counts[-1] > 0
    assert all(sum(field.counts) == profile.rows for field in profile.inputs)
    assert profile.outputs


def test_without_enough_rows_there_is_no_profile(tmp_path: Path) -> None:
    table = pq.read_table(CHURN / "source.parquet")
    pq.write_table(table.slice(0, 99), tmp_path / "few.parquet")
    init(CHURN / "model.onnx", "--sample", tmp_path / "few.parquet", "-o", tmp_path / "m.yaml")
    assert "monitoring" not in (tmp_path / "m.yaml").read_text()
    assert not list(tmp_path.glob("*.profile.json"))


def test_devices_get_a_profile_too(tmp_path: Path) -> None:
    manifest, sample = tmp_path / "m.yaml", CHURN / "source.parquet"
    init(CHURN / "model.onnx", "--mode", "edge", "--sample", sample, "-o", manifest)
    assert "monitoring:" in manifest.read_text()
    assert len(list(tmp_path.glob("*.profile.json"))) == 1


def test_validate_refuses_a_profile_that_cannot_be_used(tmp_path: Path) -> None:
    manifest, profile = tmp_path / "churn.yaml", tmp_path / "model.profile.json"
    init(CHURN / "model.onnx", "--sample", CHURN / "source.parquet", "-o", manifest)
    good = profile.read_text()
    for text, told in (
        ("{", "the document: Invalid JSON"),
        (good.replace('"orders"', '"ordered"'), "have no single value ordered"),
        ("x" * (2**20 + 1), "larger than 1 MiB"),
    ):
        profile.write_text(text)
        result = CliRunner().invoke(app, ["validate", str(manifest)])
        assert result.exit_code == 2
        assert "spec.monitoring.profile.uri: " in result.stderr
        assert told in result.stderr
    profile.unlink()
    assert CliRunner().invoke(app, ["validate", str(manifest)]).exit_code == 0


@TRAINED
def test_a_batch_manifest_scores_the_sample_or_a_copy_with_the_contracts_names(
    wine: Any, table: Path
) -> None:
    model = table.with_name("m.ubj")
    xgboost.XGBClassifier(n_estimators=3).fit(wine.data, wine.target).save_model(model)
    manifest = table.with_name("wines.yaml")
    said = init(model, "--sample", table, "--mode", "batch", "-o", manifest, "--name", "wines")
    assert "od280/od315_of_diluted_wines is od280_od315_of_diluted_wines there" in said
    deployment = proven(manifest)
    assert deployment.spec.batch is not None
    copy = Path((deployment.spec.batch.source.uri or "").removeprefix("file://"))
    assert copy.name == "wines.table.csv"
    assert copy.read_text().splitlines()[1].startswith('"b000","14.23"')

    frame = wine.data.rename(columns=lambda name: name.replace("/", "_"))
    frame.to_parquet(table.with_name("plain.parquet"), index=False)
    xgboost.XGBClassifier(n_estimators=3).fit(frame, wine.target).save_model(model)
    init(model, "--sample", table.with_name("plain.parquet"), "--mode", "batch", "-o", manifest,
         "--name", "wines", "--force")  # fmt: skip
    deployment = proven(manifest)
    assert deployment.spec.contract.entity_key.name == "row"
    assert deployment.spec.batch is not None
    keyed = pq.read_table((deployment.spec.batch.source.uri or "").removeprefix("file://"))
    assert keyed.column("row").to_pylist() == list(range(178))
    assert "TO DECIDE: the column that identifies" in manifest.read_text()


@TRAINED
def test_a_model_without_names_takes_the_samples_order_and_says_so(wine: Any, table: Path) -> None:
    model = table.with_name("m.json")
    xgboost.XGBClassifier(n_estimators=3).fit(wine.data.values, wine.target).save_model(model)
    manifest = table.with_name("m.yaml")
    said = init(model, "--sample", table, "-o", manifest)
    assert "The model does not name its columns" in said
    assert [field.name for field in proven(manifest).spec.contract.inputs][:2] == [
        "alcohol",
        "malic_acid",
    ]


@TRAINED
def test_a_sample_without_one_of_the_models_columns_is_refused_by_name(
    wine: Any, tmp_path: Path
) -> None:
    model = tmp_path / "m.ubj"
    xgboost.XGBClassifier(n_estimators=3).fit(wine.data, wine.target).save_model(model)
    wine.data.drop(columns="hue").to_csv(tmp_path / "few.csv", index=False)
    said = refused(model, "--sample", tmp_path / "few.csv", "-o", tmp_path / "m.yaml")
    assert "the model reads hue, and the sample has no such column" in said
    assert not (tmp_path / "m.yaml").exists()


@TRAINED
def test_a_skops_pipeline_of_texts_is_sent_to_onnx(tmp_path: Path) -> None:
    words = LazyModule("sklearn.feature_extraction.text").TfidfVectorizer()
    model = LazyModule("sklearn.pipeline").make_pipeline(words, linear_model.LogisticRegression())
    skops_io.dump(model.fit(["good film", "bad film"], ["yes", "no"]), tmp_path / "m.skops")
    said = refused(tmp_path / "m.skops", "-o", tmp_path / "m.yaml")
    assert "export a pipeline that reads texts as ONNX" in " ".join(said.split())


@TRAINED
def test_files_are_overwritten_only_on_demand(wine: Any, table: Path) -> None:
    model = table.with_name("m.ubj")
    xgboost.XGBClassifier(n_estimators=3).fit(wine.data, wine.target).save_model(model)
    manifest = table.with_name("m.yaml")
    table.with_name("m.golden.jsonl").write_text("mine")
    said = refused(model, "--sample", table, "-o", manifest, code=1)
    assert "m.golden.jsonl exists; give --force" in said.replace("\n", "")
    assert table.with_name("m.golden.jsonl").read_text() == "mine"
    assert not manifest.exists()
    init(model, "--sample", table, "-o", manifest, "--force")
    proven(manifest)


@TRAINED
def test_missing_values_are_taken_only_by_a_model_that_copes(wine: Any, table: Path) -> None:
    holes = table.with_name("holes.csv")
    text = table.read_text().replace("b003,14.37,", "b003,,")
    holes.write_text(text)
    copes, fails = table.with_name("m.ubj"), table.with_name("m.skops")
    xgboost.XGBClassifier(n_estimators=3).fit(wine.data, wine.target).save_model(copes)
    fitted = linear_model.LogisticRegression(max_iter=5).fit(wine.data.values, wine.target)
    skops_io.dump(fitted, fails)
    manifest = table.with_name("m.yaml")
    nullable = []
    for model in (copes, fails):
        init(model, "--sample", holes, "-o", manifest, "--force")
        nullable.append(proven(manifest).spec.contract.inputs[0].nullable)
    assert nullable == [True, False]
    assert "The model fails on missing values" in manifest.read_text()


# ---------------------------------------------------------------- ONNX graphs


@TRAINED
def test_an_mlflow_folder_gives_names_types_and_examples(wine: Any, tmp_path: Path) -> None:
    folder = tmp_path / "wine-model"
    folder.mkdir()
    trees = xgboost.XGBClassifier(n_estimators=3).fit(wine.data.values, wine.target)
    trees.save_model(folder / "model.ubj")
    columns = [{"type": "double", "name": name, "required": True} for name in wine.data.columns]
    example = {"columns": list(wine.data.columns), "data": wine.data.head(4).values.tolist()}
    (folder / "input_example.json").write_text(json.dumps(example))
    said = {
        "flavors": {
            "python_function": {"data": "model.ubj", "loader_module": "mlflow.xgboost"},
            "xgboost": {"data": "model.ubj", "model_format": "ubj"},
        },
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "pandas_orient": "split",
            "type": "dataframe",
        },
        "signature": {"inputs": json.dumps(columns), "outputs": None},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(said))
    init(folder, "-o", tmp_path / "m.yaml")
    deployment = proven(tmp_path / "m.yaml")
    assert deployment.metadata.name == "wine-model"
    assert deployment.spec.contract.inputs[12].name == "proline"
    assert deployment.spec.contract.golden_vectors is not None

    said["flavors"] = {"sklearn": {"pickled_model": "../../secret.skops"}}
    (folder / "MLmodel").write_text(yaml.safe_dump(said))
    assert "no file of one that is served" in refused(folder, "-o", tmp_path / "other.yaml")


@TRAINED
def test_formats_are_told_by_their_content_not_by_their_name(model: Path) -> None:
    renamed = model.with_name("model.onnx")
    model.rename(renamed)
    assert recognised(renamed) in FORMATS
    assert recognised(renamed) != "onnx"
    renamed.write_bytes(b"nothing known")
    with pytest.raises(ModelNotLoadable, match="no model of a known format"):
        recognised(renamed)


@TRAINED
def test_golden_vectors_hold_numbers_not_their_text(wine: Any, table: Path) -> None:
    model = table.with_name("m.ubj")
    xgboost.XGBClassifier(n_estimators=3).fit(wine.data, wine.target).save_model(model)
    init(model, "--sample", table, "-o", table.with_name("m.yaml"))
    first = json.loads(table.with_name("m.golden.jsonl").read_text().splitlines()[0])
    assert first["inputs"]["alcohol"] == np.float32(14.23)
