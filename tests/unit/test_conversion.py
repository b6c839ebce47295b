"""A conversion answers as the model does, or is refused; damaged trees are never followed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from fourways_api import InputField
from fourways_cli.conversion import estimators, worker
from fourways_cli.conversion.errors import NotConverted, NotEqual
from fourways_cli.conversion.proof import compare_answers
from fourways_cli.main import app
from fourways_runtime.errors import ContractMismatch, ModelNotLoadable
from fourways_runtime.scoring.inputs import bind_inputs
from fourways_runtime.scoring.model.onnx_model import COLUMNS_KEY, load_onnx
from tests.kit.cli import CliRunner
from tests.kit.lazy import LazyModule

ensemble = LazyModule("sklearn.ensemble")
neighbors = LazyModule("sklearn.neighbors")
skops_io = LazyModule("skops.io")
xgboost = LazyModule("xgboost")

# Training and converting load libraries for seconds.
pytestmark = [pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def wine() -> Any:
    return LazyModule("sklearn.datasets").load_wine(as_frame=True)


@pytest.fixture
def table(wine: Any, tmp_path: Path) -> Path:
    wine.data.to_csv(tmp_path / "wine.csv", index=False)
    return tmp_path / "wine.csv"


@pytest.mark.parametrize(
    "kind",
    [
        (ensemble, "RandomForestClassifier", {"n_estimators": 5, "random_state": 0}),
        (ensemble, "RandomForestRegressor", {"n_estimators": 5, "random_state": 0}),
        (ensemble, "GradientBoostingClassifier", {"n_estimators": 3}),
        (ensemble, "HistGradientBoostingRegressor", {"max_iter": 5}),
        (neighbors, "KNeighborsClassifier", {"n_neighbors": 3}),
    ],
    ids=lambda it: it[1],
)
def test_what_skops_cannot_carry_to_a_server_is_proven_as_onnx(
    kind: tuple[LazyModule, str, dict[str, int]], wine: Any, table: Path
) -> None:
    module, name, told = kind
    estimator = getattr(module, name)(**told)
    path, out = table.with_name("m.skops"), table.with_name("m.onnx")
    skops_io.dump(estimator.fit(wine.data, wine.target), path)
    said = worker.convert(path, table, out)
    assert said["rows"] == 178
    assert said["difference"] < 1e-5
    assert said["classes"] == (178 if hasattr(estimator, "classes_") else None)
    assert not said["made_up"]
    expected = estimator.predict(wine.data)
    (found, *_) = load_onnx(out, threads=1).predict({"X": wine.data.to_numpy(np.float32)}).values()
    assert found.reshape(-1) == pytest.approx(expected, abs=1e-4)


def test_several_targets_are_declared_as_they_are_answered(wine: Any, table: Path) -> None:
    estimator = ensemble.ExtraTreesRegressor(n_estimators=3, random_state=0)
    estimator.fit(wine.data, np.column_stack([wine.target, wine.data["hue"]]))
    path, out = table.with_name("m.skops"), table.with_name("m.onnx")
    skops_io.dump(estimator, path)
    worker.convert(path, table, out)
    (answer,) = load_onnx(out, threads=1).outputs
    assert answer.shape == (None, 2)
    manifest = table.with_name("m.yaml")
    told = [str(out), "--sample", str(table), "-o", str(manifest)]
    result = CliRunner().invoke(app, ["init", *told])
    assert result.exit_code == 0, result.output


def test_types_that_a_conversion_does_not_trust_have_another_way_out(
    wine: Any, table: Path
) -> None:
    pipeline = LazyModule("sklearn.pipeline")
    preprocessing = LazyModule("sklearn.preprocessing")
    unknown = LazyModule("sklearn.isotonic").check_increasing
    step = preprocessing.FunctionTransformer(np.log1p, inverse_func=unknown, check_inverse=False)
    path = table.with_name("m.skops")
    estimator = pipeline.make_pipeline(step, ensemble.ExtraTreesRegressor(2))
    skops_io.dump(estimator.fit(wine.data, wine.target), path)
    result = CliRunner().invoke(app, ["convert", str(path), "-o", str(table.with_name("m.onnx"))])
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "export it as ONNX where you trained it (skl2onnx)" in said
    assert "fourways convert" not in said


def test_a_converted_model_takes_its_columns_by_name(wine: Any, table: Path) -> None:
    path, out = table.with_name("m.ubj"), table.with_name("m.onnx")
    xgboost.XGBClassifier(n_estimators=3).fit(wine.data, wine.target).save_model(path)
    worker.convert(path, table, out)
    model = load_onnx(out, threads=1)
    assert model.inputs[0].columns == tuple(wine.data.columns)
    names = [name.replace("/", "_") for name in reversed(wine.data.columns)]
    fields = [InputField(name=name, type="float32") for name in names]
    (feed,) = bind_inputs(fields, model.inputs)
    assert [field.name for field in feed.fields] == names[::-1]
    with pytest.raises(ContractMismatch, match="the contract has no hue"):
        bind_inputs([f for f in fields if f.name != "hue"], model.inputs)


@pytest.mark.parametrize("text", ["[", '{"a": 1}', "[]", '["a"]', "[" * 100_000, "null"])
def test_metadata_that_is_no_list_of_columns_is_ignored(text: str, wine: Any, table: Path) -> None:
    path, out = table.with_name("m.ubj"), table.with_name("m.onnx")
    xgboost.XGBClassifier(n_estimators=1).fit(wine.data, wine.target).save_model(path)
    worker.convert(path, None, out)
    made = onnx.load(out)
    onnx.helper.set_model_props(made, {COLUMNS_KEY: text})
    onnx.save(made, out)
    assert load_onnx(out, threads=1).inputs[0].columns == ()


def test_a_conversion_that_answers_otherwise_is_refused(
    wine: Any, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [table.with_name(name) for name in ("m.ubj", "other.ubj")]
    for path, target in zip(models, (wine.target, (wine.target + 1) % 3), strict=True):
        xgboost.XGBClassifier(n_estimators=3).fit(wine.data, target).save_model(path)
    real = worker.trees_to_onnx
    monkeypatch.setattr(worker, "trees_to_onnx", lambda path, *more: real(models[1], *more))
    with pytest.raises(NotEqual, match="178 of 178 rows get another class, the first in row 0"):
        worker.convert(models[0], table, table.with_name("m.onnx"))


def test_a_difference_within_the_tolerance_is_said_and_a_greater_one_is_refused() -> None:
    ours = {"prediction": np.array([1.0, 100.0])}
    near = {"variable": np.array([[1.0], [100.005]])}
    assert compare_answers(ours, near).difference == pytest.approx(0.005)
    for wrong in (100.1, np.nan):
        with pytest.raises(NotEqual, match="1 of 2 rows differ"):
            compare_answers(ours, {"variable": np.array([[1.0], [wrong]])})
    with pytest.raises(NotEqual, match="1 numbers per row, its conversion 2"):
        compare_answers(ours, {"variable": np.ones((2, 2))})


def tree(**changed: Any) -> Any:
    sound: dict[str, Any] = {
        "node_count": 3,
        "capacity": 3,
        "n_features": 2,
        "children_left": np.array([1, -1, -1]),
        "children_right": np.array([2, -1, -1]),
        "feature": np.array([1, -2, -2]),
    }
    return SimpleNamespace(**sound | changed)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"node_count": 4}, "a count of nodes"),
        ({"children_left": np.array([0, -1, -1])}, "a child that does not exist"),
        ({"children_right": np.array([7, -1, -1])}, "a child that does not exist"),
        ({"children_left": np.array([-5, -1, -1])}, "a child that does not exist"),
        ({"feature": np.array([2, -2, -2])}, "a column that does not exist"),
        ({"feature": np.array([-1, -2, -2])}, "a column that does not exist"),
    ],
)
def test_a_damaged_tree_is_refused_before_it_is_followed(changed: Any, fault: str) -> None:
    estimators._check_tree(tree())
    with pytest.raises(ModelNotLoadable, match=fault):
        estimators._check_tree(tree(**changed))


def test_a_file_with_a_damaged_tree_is_refused(wine: Any, tmp_path: Path) -> None:
    forest = ensemble.RandomForestClassifier(2, random_state=0).fit(wine.data, wine.target)
    inner = forest.estimators_[1].tree_
    state = inner.__getstate__()
    state["nodes"]["left_child"][0] = 1_000_000
    inner.__setstate__(state)
    skops_io.dump(forest, tmp_path / "m.skops")
    with pytest.raises(ModelNotLoadable, match="damaged: a node has a child"):
        estimators.load_checked(tmp_path / "m.skops", 1 << 30)


def test_the_searches_of_neighbours_in_a_file_are_not_used(wine: Any, tmp_path: Path) -> None:
    near = neighbors.KNeighborsClassifier(3, algorithm="ball_tree").fit(wine.data, wine.target)
    skops_io.dump(near, tmp_path / "m.skops")
    found = estimators.load_checked(tmp_path / "m.skops", 1 << 30)
    assert found._tree is None
    assert found.predict(wine.data).tolist() == near.predict(wine.data).tolist()


def test_an_onnx_file_is_not_converted(tmp_path: Path, wine: Any) -> None:
    path, out = tmp_path / "m.ubj", tmp_path / "m.onnx"
    xgboost.XGBClassifier(n_estimators=1).fit(wine.data, wine.target).save_model(path)
    worker.convert(path, None, out)
    with pytest.raises(NotConverted, match="an ONNX model already"):
        worker.convert(out, None, tmp_path / "again.onnx")


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_a_model_that_cannot_be_converted_is_served_as_it_is(wine: Any, table: Path) -> None:
    path = table.with_name("dart.ubj")
    model = xgboost.XGBClassifier(n_estimators=2, booster="dart")
    model.fit(wine.data, wine.target).save_model(path)
    result = run(path, "--sample", table, "-o", table.with_name("m.onnx"))
    assert result.exit_code == 2
    assert f"it needs no conversion: fourways serve {path}" in " ".join(result.stderr.split())


def test_columns_of_any_name_are_matched_in_a_model_that_selects_them(tmp_path: Path) -> None:
    pd = LazyModule("pandas")
    compose, pre = LazyModule("sklearn.compose"), LazyModule("sklearn.preprocessing")
    linear, pipeline = LazyModule("sklearn.linear_model"), LazyModule("sklearn.pipeline")
    numbers = np.linspace(-1, 1, 60)
    texts = np.resize(np.array(["x", "y", "z"], object), 60)
    table = pd.DataFrame({"Umsatz (EUR)": numbers, "1st%": numbers**2, "Größe": texts})
    steps = [("n", pre.StandardScaler(), ["1st%", "Umsatz (EUR)"])]
    steps.append(("c", pre.OneHotEncoder(), ["Größe"]))
    final = linear.LogisticRegression()
    model = pipeline.make_pipeline(compose.ColumnTransformer(steps), final).fit(table, numbers > 0)
    skops_io.dump(model, tmp_path / "m.skops")
    table.to_csv(tmp_path / "t.csv", index=False)
    said = worker.convert(tmp_path / "m.skops", tmp_path / "t.csv", tmp_path / "m.onnx")
    assert (said["rows"], said["classes"]) == (60, 60)
    inputs = [each.name for each in load_onnx(tmp_path / "m.onnx", threads=1).inputs]
    assert inputs == list(table.columns)


def test_a_folder_that_is_not_there_is_named_and_not_the_model(tmp_path: Path) -> None:
    (tmp_path / "m.skops").touch()
    result = run(tmp_path / "m.skops", "-o", tmp_path / "none" / "m.onnx")
    assert result.exit_code == 1
    said = "".join(result.stderr.split())
    assert f"thereisnofolder{tmp_path / 'none'};makeit" in said


def test_the_command_writes_the_file_or_nothing(wine: Any, table: Path) -> None:
    path, out = table.with_name("m.ubj"), table.with_name("m.onnx")
    xgboost.XGBClassifier(n_estimators=3).fit(wine.data, wine.target).save_model(path)
    result = run(path, "--sample", table, "-o", out)
    assert result.exit_code == 0, result.output
    assert "in 178 rows of wine.csv, the same class in every row" in result.output
    before = out.read_bytes()
    assert run(path, "-o", out).exit_code == 1
    path.write_bytes(b"\x80\x04never opened")
    result = run(path, "-o", out, "--force")
    assert result.exit_code == 2
    assert "never opened" in result.stderr
    assert out.read_bytes() == before
    assert sorted(it.name for it in table.parent.iterdir()) == ["m.onnx", "m.ubj", "wine.csv"]
