"""A model file and a sample become a manifest that is valid and whose golden vectors hold."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from onnx import TensorProto, helper

from fourways_api import ModelDeployment
from fourways_api.training_profile import read_profile
from fourways_cli.main import app
from fourways_cli.manifests import read_manifests
from fourways_runtime.errors import ModelNotLoadable
from fourways_runtime.scoring.golden import check_vectors, read_vectors
from fourways_runtime.scoring.model import FORMATS, load
from fourways_runtime.scoring.model.description import recognised
from fourways_runtime.scoring.model.text_model import reading_texts
from fourways_runtime.scoring.pipeline import Pipeline
from tests.kit import texts
from tests.kit.cli import CliRunner
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


def init(*arguments: str | Path) -> str:
    """Run fourways init; return what it printed."""
    result = CliRunner().invoke(app, ["init", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str | Path, code: int = 2) -> str:
    result = CliRunner().invoke(app, ["init", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stderr


def proven(manifest: Path) -> ModelDeployment:
    """Return the only deployment of a manifest, after it was held against its own model."""
    read = read_manifests([manifest])
    assert not read.findings
    deployment = read.valid[0].deployment
    assert deployment is not None
    contract, model = deployment.spec.contract, deployment.spec.model
    path = Path(model.uri.removeprefix("file://"))
    pipeline = Pipeline(contract, load(path, model, threads=1, external_root=path.parent))
    if contract.golden_vectors is not None:
        golden = Path(contract.golden_vectors.uri.removeprefix("file://"))
        check_vectors(pipeline, read_vectors(golden, contract), contract.golden_vectors)
    return deployment


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


def graph(inputs: list[tuple[str, int, list[Any]]], nodes: list[Any], outputs: list[Any]) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_dimensions_that_the_model_leaves_free_get_a_size_that_works(tmp_path: Path) -> None:
    pooled = helper.make_node("MaxPool", ["image"], ["pooled"], kernel_shape=[8, 8])
    (tmp_path / "m.onnx").write_bytes(
        graph(
            [("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
            [pooled],
            [("pooled", TensorProto.FLOAT, None)],
        )
    )
    # A stream stores its predictions, in columns of one size.
    init(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml", "--mode", "streaming")
    (field,) = proven(tmp_path / "m.yaml").spec.contract.inputs
    assert (field.name, field.shape) == ("image", (3, 8, 8))
    assert "leaves sizes of the shape free" in (tmp_path / "m.yaml").read_text()
    init(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml", "--force")
    contract = proven(tmp_path / "m.yaml").spec.contract
    assert contract.inputs[0].shape == (3, -1, -1)
    assert contract.outputs[0].shape == (3, -1, -1)


def sums(folder: Path) -> Path:
    """Write a model that returns the sum of two numbers, a and b, of each row."""
    made = graph(
        [(name, TensorProto.DOUBLE, ["n", 1]) for name in "ab"],
        [helper.make_node("Add", ["a", "b"], ["total"])],
        [("total", TensorProto.DOUBLE, ["n", 1])],
    )
    (folder / "m.onnx").write_bytes(made)
    return folder / "m.onnx"


@pytest.mark.parametrize(
    ("extremes", "bounds"),
    [
        (("1.7e308", "0"), (True, False)),
        (("-1.7e308", "0"), (False, True)),
        (("-1.7e308", "1.7e308"), (False, False)),
        (("5e-324", "0"), (True, True)),
    ],
)
def test_a_bound_that_no_float_can_express_is_left_out(
    extremes: tuple[str, str], bounds: tuple[bool, bool], tmp_path: Path
) -> None:
    rows = [f"k{at},{extremes[at % 2]},0" for at in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["key,a,b", *rows]) + "\n")
    init(sums(tmp_path), "--sample", tmp_path / "t.csv", "-o", tmp_path / "m.yaml")
    found = proven(tmp_path / "m.yaml").spec.contract.inputs[0].range
    has = (False, False) if found is None else (found.min is not None, found.max is not None)
    assert has == bounds


def test_a_table_with_another_separator_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("key;a;b\nk1;1;2\n")
    said = refused(sums(tmp_path), "--sample", tmp_path / "t.csv", "-o", tmp_path / "m.yaml")
    assert "has a semicolon between the columns: write it with commas" in said


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("0.5", "patient_id is neither text nor whole numbers"),
        ("same", "patient_id repeats values, or lacks some"),
    ],
)
def test_init_says_why_a_column_is_not_the_key(key: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"patient_id,a,b\n{key},1,2\n{key},2,2\n")
    asked = (sums(tmp_path), "--sample", tmp_path / "t.csv", "-o", tmp_path / "m.yaml")
    result = CliRunner().invoke(app, ["init", *map(str, asked), "--mode", "batch"])
    assert result.exit_code == 0, result.output
    assert f"row is the number of the row, because {why}" in " ".join(result.output.split())


def test_names_of_a_model_write_no_yaml_of_their_own(tmp_path: Path) -> None:
    hostile = "x\n  image: evil\x1b[31m #: {a: &b"
    (tmp_path / "m.onnx").write_bytes(
        graph(
            # Names that are equal once cleaned: each field has to name its tensor.
            [(name, TensorProto.FLOAT, ["n", 2]) for name in (hostile, hostile.upper())],
            [helper.make_node("Add", [hostile, hostile.upper()], ["sum\n evil"])],
            [("sum\n evil", TensorProto.FLOAT, ["n", 2])],
        )
    )
    init(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml")
    contract = proven(tmp_path / "m.yaml").spec.contract
    assert contract.inputs[0].tensor == hostile
    assert contract.outputs[0].tensor == "sum\n evil"
    text = (tmp_path / "m.yaml").read_text()
    assert "\x1b" not in text
    assert set(yaml.safe_load(text)["spec"]) == {
        "mode", "model", "contract", "realtime", "resources",
    }  # fmt: skip


def test_an_output_that_is_no_tensor_is_left_out_with_the_reason(tmp_path: Path) -> None:
    pieces = helper.make_node("SplitToSequence", ["x"], ["parts"])
    made = helper.make_graph(
        [pieces, helper.make_node("Neg", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [
            helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2]),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    init(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml")
    assert [each.name for each in proven(tmp_path / "m.yaml").spec.contract.outputs] == ["y"]
    assert "# Left out: parts: the model's output parts is" in (tmp_path / "m.yaml").read_text()


def test_a_sample_of_lists_feeds_the_only_tensor(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(
        graph(
            [("series", TensorProto.FLOAT, ["n", "t", 2])],
            [helper.make_node("ReduceMean", ["series"], ["mean"], axes=[1, 2], keepdims=0)],
            [("mean", TensorProto.FLOAT, ["n"])],
        )
    )
    rows = [[[float(at), 1.0], [2.0, 3.0], [4.0, 5.0]] for at in range(60)]
    kind = pa.list_(pa.list_(pa.float32()))
    ids = [f"s{at}" for at in range(60)]
    pq.write_table(pa.table({"id": ids, "window": pa.array(rows, kind)}), tmp_path / "t.parquet")
    init(tmp_path / "m.onnx", "--sample", tmp_path / "t.parquet", "-o", tmp_path / "m.yaml")
    contract = proven(tmp_path / "m.yaml").spec.contract
    assert contract.inputs[0].shape == (3, 2)
    assert contract.golden_vectors is not None


# ---------------------------------------------------------------- MLflow folders, formats, pickles


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


def test_a_model_fixed_to_a_batch_of_one_needs_no_edit_and_its_price_is_told(
    tmp_path: Path,
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "m.onnx")
    table = tmp_path / "t.csv"
    table.write_text("id,a,b\nu,1,-2\nv,3,4\n")
    init(tmp_path / "m.onnx", "--sample", table, "-o", tmp_path / "m.yaml")
    contract = proven(tmp_path / "m.yaml").spec.contract
    assert [field.name for field in contract.inputs] == ["a", "b"]
    assert "called for each record" in (tmp_path / "m.yaml").read_text()


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


def test_what_no_contract_can_declare_is_refused_with_the_fix(tmp_path: Path) -> None:
    def said(inputs: list[Any], outputs: list[Any], op: str = "Identity") -> str:
        names = [each.name for each in inputs] or ["one"]
        constants = [] if inputs else [onnx.numpy_helper.from_array(np.ones((1, 3), "f4"), "one")]
        graph = helper.make_graph(
            [helper.make_node(op, names, ["y"])], "g", inputs, outputs, constants
        )
        opsets = [helper.make_opsetid("", 17)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
        return refused(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml")

    def value(name: str, *sizes: int | str, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, sizes)

    assert "the model takes no inputs" in said([], [value("y", 1, 3)])
    deep = ("N", 1, 2, 1, 2, 2)
    text = said([value("x", *deep)], [value("y", *deep)])
    assert "5 dimensions per record, and a contract's at most 4; export it with fewer" in text
    places = value("y", 2, "M", kind=TensorProto.INT64)
    text = said([value("x", "N", 3)], [places], op="NonZero")
    assert "no output that can be served: y: it has no elements for a record" in text


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
