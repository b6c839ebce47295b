"""scikit-learn, XGBoost and LightGBM models: trained here, answered as their libraries answer."""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import scipy.sparse
import skops.io
import xgboost
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from fourways_api.installing import install_command
from fourways_api.model import ModelReference
from fourways_runtime.errors import ConfigError, ContractMismatch, ModelError, ModelNotLoadable
from fourways_runtime.scoring import model as models
from fourways_runtime.scoring.model import Tensor

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(80, 3))
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])

pytestmark = pytest.mark.embedded


def load(path: Path, kind: Any, **settings: Any) -> models.Model:
    return models.load(
        path, ModelReference(uri="file:///m", version="1", format=kind, **settings), threads=1
    )


def saved(estimator: Any, folder: Path) -> Path:
    skops.io.dump(estimator, folder / "model")
    return folder / "model"


# ---------------------------------------------------------------- skops


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        MLPClassifier(
            hidden_layer_sizes=(4,), max_iter=20, tol=1.0, n_iter_no_change=1, random_state=0
        ),
        GaussianNB(),
        BaggingClassifier(LogisticRegression(), n_estimators=3, random_state=0),
        SVC(),
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
        make_pipeline(SelectKBest(k=2), LogisticRegression()),
        CalibratedClassifierCV(LogisticRegression(), cv=2),
        VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"),
        StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], cv=2),
        GaussianProcessClassifier(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_classifier_answers_as_scikit_learn_does(estimator: Any, tmp_path: Path) -> None:
    estimator.fit(X, Y)
    if parallel := "n_jobs" in estimator.get_params():
        # As trained on a large machine: answered with this, it starts a process a core.
        estimator.set_params(n_jobs=-1)
    model = load(saved(estimator, tmp_path), "skops")
    if parallel:
        estimator.set_params(n_jobs=None)
    answer = model.predict({"X": X})
    assert model.inputs == (Tensor("X", "float64", (None, 3)),)
    assert model.outputs[0] == Tensor("prediction", "int64", (None,))
    np.testing.assert_array_equal(answer["prediction"], estimator.predict(X))
    if hasattr(estimator, "predict_proba"):
        assert model.outputs[1] == Tensor("probabilities", "float64", (None, 2))
        np.testing.assert_allclose(answer["probabilities"], estimator.predict_proba(X))
    else:
        assert set(answer) == {"prediction"}


def test_several_targets_are_answered_together(tmp_path: Path) -> None:
    targets = np.stack([Y, 1 - Y, X[:, 1] > 0], axis=1).astype(int)
    estimator = MultiOutputClassifier(LogisticRegression()).fit(X, targets)
    model = load(saved(estimator, tmp_path), "skops")
    assert model.outputs == (
        Tensor("prediction", "int64", (None, 3)),
        Tensor("probabilities", "float64", (None, 3, 2)),
    )
    for rows in (1, 3, len(X)):  # three rows of three targets could be taken for each other
        answer = model.predict({"X": X[:rows]})
        np.testing.assert_array_equal(answer["prediction"], estimator.predict(X[:rows]))
        expected = np.stack(estimator.predict_proba(X[:rows]), axis=1)
        np.testing.assert_array_equal(answer["probabilities"], expected)


def test_an_output_that_is_no_array_leaves_the_others(tmp_path: Path) -> None:
    classes = np.stack([Y, np.arange(len(Y)) % 3], axis=1)
    estimator = MultiOutputClassifier(LogisticRegression()).fit(X, classes)
    model = load(saved(estimator, tmp_path), "skops")
    prediction, probabilities = model.outputs
    assert prediction == Tensor("prediction", "int64", (None, 2))
    assert "same shape" in probabilities.unreadable
    np.testing.assert_array_equal(model.predict({"X": X})["prediction"], estimator.predict(X))


def test_labels_that_scikit_learn_keeps_sparse_are_answered(tmp_path: Path) -> None:
    labels = scipy.sparse.csr_matrix(np.stack([Y, 1 - Y], axis=1))
    estimator = OneVsRestClassifier(LogisticRegression()).fit(X, labels)
    answer = load(saved(estimator, tmp_path), "skops").predict({"X": X})["prediction"]
    np.testing.assert_array_equal(answer, estimator.predict(X).toarray())


def test_a_model_that_was_not_trained_on_zero_loads(tmp_path: Path) -> None:
    codes = np.arange(len(X) * 3).reshape(-1, 3) % 3 + 1
    estimator = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(codes, Y)
    model = load(saved(estimator, tmp_path), "skops")
    assert model.outputs == ()
    answer = model.predict({"X": codes.astype(float)})
    np.testing.assert_array_equal(answer["prediction"], estimator.predict(codes))
    with pytest.raises(ModelError, match="ValueError"):
        model.predict({"X": np.zeros((1, 3))})


def test_a_regressor_answers_in_numbers(tmp_path: Path) -> None:
    estimator = LinearRegression().fit(X, X @ [1, 2, 3])
    model = load(saved(estimator, tmp_path), "skops")
    assert model.outputs == (Tensor("prediction", "float64", (None,)),)
    np.testing.assert_allclose(model.predict({"X": X})["prediction"], estimator.predict(X))
    assert len(model.predict({"X": X.astype(np.float32)})["prediction"]) == len(X)


def test_labels_that_are_words_are_strings(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(X, np.where(Y > 0, "yes", "no"))
    model = load(saved(estimator, tmp_path), "skops")
    assert model.outputs[0] == Tensor("prediction", "string", (None,))
    answer = model.predict({"X": X})["prediction"]
    assert answer.dtype == object
    assert answer.tolist() == estimator.predict(X).tolist()


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"x": X},
        {"X": X[:, :2]},
        {"X": X[0]},
        {"X": X.astype(str)},
        {"X": X.astype(complex)},
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(tensors: Any, tmp_path: Path) -> None:
    model = load(saved(LinearRegression().fit(X, Y), tmp_path), "skops")
    with pytest.raises(ContractMismatch, match="X"):
        model.predict(tensors)


class Homemade(BaseEstimator):  # type: ignore[misc]
    """A type skops knows nothing of."""

    def fit(self, rows: Any, y: Any = None) -> Any:
        self.n_features_in_ = 3
        return self

    def predict(self, rows: Any) -> Any:
        return rows[:, 0]


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (Homemade(), "Homemade"),
        (make_pipeline(FunctionTransformer(json.dumps), LinearRegression()), r"json\.dumps"),
        (HistGradientBoostingClassifier(max_iter=2), "TreePredictor"),
        (RandomForestClassifier(n_estimators=1), "Tree; export it as ONNX"),
        (KNeighborsClassifier(), "KDTree"),
    ],
    ids=["own-class", "own-function", "boosted", "forest", "neighbours"],
)
def test_types_that_are_not_trusted_are_refused(estimator: Any, said: str, tmp_path: Path) -> None:
    if not hasattr(estimator, "steps"):
        estimator.fit(X, Y)
    with pytest.raises(ModelNotLoadable, match=rf"not trusted: .*{said}"):
        load(saved(estimator, tmp_path), "skops")


class Runs:
    """What every pickle can do."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("kind", ["skops", "xgboost", "lightgbm", "onnx"])
def test_a_pickle_is_never_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(ModelNotLoadable):
        load(tmp_path / "model", kind)
    assert not (tmp_path / "ran").exists()


def reworked(path: Path, change: Any) -> None:
    """Write a skops file again with another schema."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files["schema.json"])
    change(schema)
    files["schema.json"] = json.dumps(schema).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)


def test_a_file_that_allocates_without_end_is_refused(tmp_path: Path) -> None:
    path = saved(LinearRegression().fit(X, Y), tmp_path)
    reworked(path, lambda schema: schema.update(__class__="void", __module__="numpy"))
    with pytest.raises(ModelNotLoadable, match=r"numpy\.void"):
        load(path, "skops")


def test_a_file_that_unpacks_to_more_than_allowed_is_refused(tmp_path: Path) -> None:
    path = saved(LinearRegression().fit(X, Y), tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"\0" * (3 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ModelNotLoadable, match="unpacks to"):
        load(path, "skops", max_size_mi_b=1)


def _zip(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in files.items():
            archive.writestr(name.replace("_", "."), body)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"junk",
        _zip(),
        _zip(schema_json=b"{"),
        _zip(schema_json=b"[" * 100_000),
        _zip(schema_json=b"{}"),
        _zip(schema_json=b'{"protocol": 2, "__loader__": "Nope"}'),
    ],
)
def test_what_is_no_skops_file_is_said(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(raw)
    with pytest.raises(ModelNotLoadable, match="not a skops model"):
        load(tmp_path / "model", "skops")


@pytest.mark.parametrize("thing", [LinearRegression(), StandardScaler().fit(X), {"a": 1}])
def test_what_does_not_predict_is_no_model(thing: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelNotLoadable, match="no fitted estimator"):
        load(saved(thing, tmp_path), "skops")


# ---------------------------------------------------------------- xgboost


@pytest.mark.parametrize("suffix", ["json", "ubj"])
@pytest.mark.parametrize("labels", [Y, THREE], ids=["binary", "multi"])
def test_xgboost_answers_as_xgboost_does(suffix: str, labels: Any, tmp_path: Path) -> None:
    estimator = xgboost.XGBClassifier(n_estimators=4, max_depth=2).fit(X, labels)
    path = tmp_path / f"model.{suffix}"
    estimator.save_model(path)
    model = load(path, "xgboost")
    expected = estimator.predict_proba(X)
    expected = expected[:, 1] if expected.shape[1] == 2 else expected
    assert model.inputs == (Tensor("X", "float32", (None, 3)),)
    assert model.outputs == (Tensor("prediction", "float32", (None, *expected.shape[1:])),)
    answer = model.predict({"X": X.astype(np.float32)})["prediction"]
    np.testing.assert_allclose(answer, expected, rtol=1e-6)


def test_xgboost_stopped_early_answers_with_its_best_trees(tmp_path: Path) -> None:
    estimator = xgboost.XGBRegressor(n_estimators=200, early_stopping_rounds=3, max_depth=6)
    noise = RANDOM.normal(size=80)
    estimator.fit(X[:40], noise[:40], eval_set=[(X[40:], noise[40:])], verbose=False)
    estimator.save_model(tmp_path / "model.ubj")
    answer = load(tmp_path / "model.ubj", "xgboost").predict({"X": X})["prediction"]
    np.testing.assert_allclose(answer, estimator.predict(X), rtol=1e-5)
    everything = estimator.get_booster().inplace_predict(X)
    assert not np.allclose(answer, everything)


def test_xgboost_takes_a_missing_value(tmp_path: Path) -> None:
    estimator = xgboost.XGBRegressor(n_estimators=2).fit(X, Y)
    estimator.save_model(tmp_path / "model.json")
    holes = X.astype(np.float32)
    holes[:, 1] = np.nan
    answer = load(tmp_path / "model.json", "xgboost").predict({"X": holes})["prediction"]
    np.testing.assert_allclose(answer, estimator.predict(holes), rtol=1e-6)


@pytest.mark.parametrize("raw", [b"", b"binf\0\0\0", b"\0" * 500, b"{", b"{}", b'{"learner": 1}'])
def test_what_is_no_xgboost_model_is_said(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(raw)
    with pytest.raises(ModelNotLoadable, match=r"xgboost|XGBoost"):
        load(tmp_path / "model", "xgboost")


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_an_xgboost_model_cut_short_is_said(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    xgboost.XGBRegressor(n_estimators=2).fit(X, Y).save_model(path)
    raw = path.read_bytes()
    for length in range(1, len(raw), 97):
        path.write_bytes(raw[:length])
        with pytest.raises(ModelNotLoadable, match=r"damaged or truncated"):
            load(path, "xgboost")


@pytest.mark.parametrize(
    "raw",
    [
        b"{L" + (2**62).to_bytes(8, "big") + b"x",
        b"{L" + (-1).to_bytes(8, "big", signed=True) + b"i\0}",
        b"{L" + (1).to_bytes(8, "big") + b"a[$D#L" + (2**60).to_bytes(8, "big"),
        b"{L" + (1).to_bytes(8, "big") + b"a[#L" + (2**60).to_bytes(8, "big") + b"Z",
        b"{L" + (1).to_bytes(8, "big") + b"a" + b"[" * 10_000,
        b"{L" + (1).to_bytes(8, "big") + b"aS}",
    ],
    ids=["key", "negative", "typed-array", "array", "depth", "string"],
)
def test_a_ubjson_file_that_lies_about_lengths_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(raw)
    with pytest.raises(ModelNotLoadable, match="damaged or truncated"):
        load(tmp_path / "model", "xgboost")


# ---------------------------------------------------------------- lightgbm


def _lightgbm(labels: Any) -> Any:
    return lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1).fit(X, labels)


@pytest.mark.parametrize("labels", [Y, THREE], ids=["binary", "multi"])
def test_lightgbm_answers_as_lightgbm_does(labels: Any, tmp_path: Path) -> None:
    estimator = _lightgbm(labels)
    estimator.booster_.save_model(tmp_path / "model.txt")
    model = load(tmp_path / "model.txt", "lightgbm")
    expected = estimator.predict_proba(X)
    expected = expected[:, 1] if expected.shape[1] == 2 else expected
    assert model.outputs == (Tensor("prediction", "float64", (None, *expected.shape[1:])),)
    np.testing.assert_allclose(model.predict({"X": X})["prediction"], expected)


@pytest.mark.parametrize("raw", [b"", b"junk", b"tree\n", b"\xff\xfe", b"tree\nend of trees\n"])
def test_what_is_no_lightgbm_model_is_said(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(raw)
    with pytest.raises(ModelNotLoadable, match=r"LightGBM|lightgbm"):
        load(tmp_path / "model", "lightgbm")


def test_a_lightgbm_model_cut_short_is_said(tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    _lightgbm(Y).booster_.save_model(path)
    text = path.read_text()
    path.write_text(text[: text.index("end of trees")])
    with pytest.raises(ModelNotLoadable, match="truncated"):
        load(path, "lightgbm")


# ---------------------------------------------------------------- extras


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("skops", "skops.io", "sklearn"),
        ("xgboost", "xgboost", "xgboost"),
        ("lightgbm", "lightgbm", "lightgbm"),
    ],
)
def test_a_missing_extra_is_named(
    kind: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=re.escape(install_command(extra))):
        load(tmp_path / "model", kind)
