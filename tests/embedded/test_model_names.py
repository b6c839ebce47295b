"""Models that keep the names of their columns: matched to the contract by name, never by position.

Trained here with LightGBM, XGBoost and scikit-learn; the answers are compared with the library's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fourways_api import Contract
from fourways_api.model import ModelReference
from fourways_runtime.errors import ContractMismatch
from fourways_runtime.scoring import model as models
from fourways_runtime.scoring.dense import DenseBatch
from fourways_runtime.scoring.pipeline import Pipeline

NAMES = ["sepal length (cm)", "sepal/width", "Petal", "age"]
CLEAN = ["sepal_length_cm", "sepal_width", "petal", "age"]
RANDOM = np.random.default_rng(11)
TABLE = pd.DataFrame(RANDOM.normal(size=(120, 4)) * [1, 5, 20, 100], columns=NAMES)
LABELS = (TABLE[NAMES[0]] * 100 + TABLE["age"] > 0).astype(int)

pytestmark = pytest.mark.embedded

Maker = Callable[[Path], tuple[str, Any]]


def _lightgbm(file: Path) -> tuple[str, Any]:
    model = lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(TABLE, LABELS)
    model.booster_.save_model(file)
    return "lightgbm", model.predict_proba(TABLE)[:, 1]


def _xgboost(file: Path) -> tuple[str, Any]:
    table = TABLE.set_axis([name.replace("(", "").replace(")", "") for name in NAMES], axis=1)
    model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(table, LABELS)
    model.save_model(file.with_suffix(".ubj"))
    file.with_suffix(".ubj").rename(file)
    return "xgboost", model.predict_proba(table)[:, 1]


def _skops(file: Path) -> tuple[str, Any]:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(TABLE, LABELS)
    skops.io.dump(model, file)
    return "skops", model.predict_proba(TABLE)[:, 1]


MAKERS: list[Maker] = [_lightgbm, _xgboost, _skops]


def load(file: Path, kind: Any) -> models.Model:
    reference = ModelReference(uri="file:///m", version="1", format=kind)
    return models.load(file, reference, threads=1)


def contract(names: list[str], kind: str, tensor: str | None = None) -> Contract:
    column = {"tensor": "probabilities", "column": 1} if kind == "skops" else {}
    output = {"name": "p", "type": "float64", "tensor": "prediction"} | column
    feed = {"tensor": tensor} if tensor else {}
    inputs = [{"name": name, "type": "float64"} | feed for name in names]
    document = {"entityKey": {"name": "id"}, "inputs": inputs, "outputs": [output]}
    return Contract.model_validate(document)


def test_a_matrix_without_names_costs_no_warning_of_scikit_learn(tmp_path: Path) -> None:
    _skops(tmp_path / "m")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load(tmp_path / "m", "skops")
        assert len(model.predict({"X": TABLE.to_numpy()})["prediction"]) == len(TABLE)


def columns(names: list[str]) -> dict[str, Any]:
    values = dict(zip(CLEAN, (TABLE[name].to_numpy() for name in NAMES), strict=True))
    return {name: values[name] for name in names}


@pytest.mark.parametrize("make", MAKERS)
def test_another_order_is_put_right(make: Maker, tmp_path: Path) -> None:
    kind, expected = make(tmp_path / "model")
    model = load(tmp_path / "model", kind)
    names = sorted(CLEAN)
    assert names != CLEAN
    pipeline = Pipeline(contract(names, kind), model)
    scored = pipeline.score_columns(np.arange(120).astype(str), columns(names))
    np.testing.assert_allclose(scored.predictions.columns["p"], expected, rtol=1e-5)
    dense = DenseBatch.of(contract(names, kind), model, 120)
    assert dense is not None
    answers = dense.answers(np.stack(list(columns(names).values()), axis=1))
    assert answers is not None
    np.testing.assert_allclose(answers["p"], expected, rtol=1e-5)


@pytest.mark.parametrize("make", MAKERS)
def test_other_names_are_refused_naming_both_sides(make: Maker, tmp_path: Path) -> None:
    kind, _ = make(tmp_path / "model")
    names = ["weight", *CLEAN[1:]]
    with pytest.raises(ContractMismatch) as caught:
        Pipeline(contract(names, kind), load(tmp_path / "model", kind))
    said = str(caught.value)
    assert "the model has no weight" in said
    assert "the contract has no sepal" in said
    assert "set tensor: X" in said


def test_names_of_ones_own_are_positional_where_the_tensor_is_named(tmp_path: Path) -> None:
    kind, expected = _skops(tmp_path / "model")
    model = load(tmp_path / "model", kind)
    names = ["a", "b", "c", "d"]
    given = dict(zip(names, columns(CLEAN).values(), strict=True))
    pipeline = Pipeline(contract(names, kind, "X"), model)
    scored = pipeline.score_columns(np.arange(120).astype(str), given)
    np.testing.assert_allclose(scored.predictions.columns["p"], expected, rtol=1e-5)
    with pytest.raises(ContractMismatch, match="the model's columns are"):
        Pipeline(contract(["age", "b", "c", "d"], kind, "X"), model)


def test_a_model_without_names_takes_the_contracts_order(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(TABLE.to_numpy(), LABELS)
    skops.io.dump(model, tmp_path / "model")
    pipeline = Pipeline(contract(CLEAN, "skops"), load(tmp_path / "model", "skops"))
    scored = pipeline.score_columns(np.arange(120).astype(str), columns(CLEAN))
    expected = model.predict_proba(TABLE.to_numpy())[:, 1]
    np.testing.assert_allclose(scored.predictions.columns["p"], expected)


def test_a_column_transformer_by_names_gets_a_table_with_names(tmp_path: Path) -> None:
    table = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0] * 5, "city": ["Berlin", "Bonn"] * 10})
    chosen = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    model = make_pipeline(chosen, LogisticRegression()).fit(table, [0, 1, 1, 1] * 5)
    skops.io.dump(model, tmp_path / "model")
    inputs = [{"name": "city", "type": "string"}, {"name": "age", "type": "float64"}]
    output = {"name": "p", "type": "float64", "tensor": "probabilities", "column": 1}
    given = Contract.model_validate(
        {"entityKey": {"name": "id"}, "inputs": inputs, "outputs": [output]}
    )
    pipeline = Pipeline(given, load(tmp_path / "model", "skops"))
    scored = pipeline.score_columns(
        np.arange(20).astype(str),
        {"city": table["city"].to_numpy(object), "age": table["age"].to_numpy()},
    )
    expected = model.predict_proba(table)[:, 1]
    np.testing.assert_allclose(scored.predictions.columns["p"], expected)


def test_a_linear_booster_answers_as_xgboost_does(tmp_path: Path) -> None:
    table = TABLE.set_axis(CLEAN, axis=1)
    model = xgboost.XGBRegressor(booster="gblinear", n_estimators=10, n_jobs=1)
    model.fit(table, LABELS)
    model.save_model(tmp_path / "model.json")
    names = sorted(CLEAN)
    pipeline = Pipeline(contract(names, "xgboost"), load(tmp_path / "model.json", "xgboost"))
    scored = pipeline.score_columns(np.arange(120).astype(str), columns(names))
    np.testing.assert_allclose(
        scored.predictions.columns["p"], model.predict(table), rtol=1e-4, atol=1e-5
    )
