"""Trains and exports the models of the benchmark: ``python exporters.py FOLDER``.

Runs in an environment of its own, whose libraries the project does not have; it prints nothing.
"""

import sys
import warnings
from pathlib import Path

import catboost
import lightgbm
import mlflow
import numpy as np
import onnx
import pandas as pd
import skops.io
import xgboost
from mlflow.models import infer_signature
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC


def main(folder: Path) -> None:
    """Write every model and its table."""
    wine, sugar = load_wine(as_frame=True), load_diabetes(as_frame=True)
    cells = load_breast_cancer(as_frame=True)
    for name, data in (("wine", wine), ("sugar", sugar), ("cells", cells)):
        table = data.data.copy()
        table.insert(0, "id", [f"{name}-{at:04}" for at in range(len(table))])
        table["target"] = data.target
        table.to_csv(folder / f"{name}.csv", index=False)
    shop, bought = shop_table()
    shop.assign(bought=bought).to_parquet(folder / "shop.parquet", index=False)

    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    logistic.fit(wine.data, wine.target)
    save_onnx(to_onnx(logistic, wine.data.to_numpy(np.float32)[:1]), folder / "skl2onnx-wine.onnx")
    boosted = GradientBoostingRegressor(n_estimators=30).fit(sugar.data.to_numpy(), sugar.target)
    save_onnx(to_onnx(boosted, sugar.data.to_numpy(np.float32)[:1]), folder / "skl2onnx-sugar.onnx")
    columns = shop_pipeline().fit(shop.drop(columns="customer_id"), bought)
    types = [(name, FloatTensorType([None, 1])) for name in ("age", "income")]
    types.append(("city", StringTensorType([None, 1])))
    save_onnx(convert_sklearn(columns, initial_types=types), folder / "skl2onnx-shop.onnx")

    skops.io.dump(logistic, folder / "skops-wine.skops")
    unnamed = make_pipeline(StandardScaler(), SVC()).fit(cells.data.to_numpy(), cells.target)
    skops.io.dump(unnamed, folder / "skops-cells.skops")
    skops.io.dump(columns, folder / "skops-shop.skops")
    network = MLPRegressor(hidden_layer_sizes=(16,), max_iter=300).fit(sugar.data, sugar.target)
    skops.io.dump(network, folder / "skops-sugar.skops")
    forest = RandomForestClassifier(60, random_state=0).fit(wine.data, wine.target)
    skops.io.dump(forest, folder / "forest.skops")

    trees = xgboost.XGBClassifier(n_estimators=30).fit(wine.data, wine.target)
    trees.save_model(folder / "xgboost-wine.ubj")
    xgboost.XGBRegressor(n_estimators=30).fit(sugar.data.to_numpy(), sugar.target).save_model(
        folder / "xgboost-sugar.json"
    )
    plain = wine.data.rename(columns=lambda name: name.replace("/", "_"))
    leaves = lightgbm.LGBMClassifier(n_estimators=30, verbose=-1).fit(plain, wine.target)
    leaves.booster_.save_model(folder / "lightgbm-wine.txt")
    lightgbm.LGBMRegressor(n_estimators=30, verbose=-1).fit(
        sugar.data.to_numpy(), sugar.target
    ).booster_.save_model(folder / "lightgbm-sugar.txt")

    cat = catboost.CatBoostClassifier(iterations=30, verbose=False, allow_writing_files=False)
    cat.fit(cells.data.to_numpy(), cells.target)
    cat.save_model(str(folder / "catboost-cells.onnx"), format="onnx")

    example = wine.data.head(5)
    signature = infer_signature(wine.data, trees.predict(wine.data))
    told = {"signature": signature, "input_example": example, "pip_requirements": []}
    mlflow.xgboost.save_model(trees, folder / "mlflow-xgboost", **told)
    mlflow.sklearn.save_model(
        logistic, folder / "mlflow-sklearn", serialization_format="skops", **told
    )
    matrix = wine.data.to_numpy(np.float32)
    mlflow.onnx.save_model(
        onnx.load(folder / "skl2onnx-wine.onnx"),
        folder / "mlflow-onnx",
        signature=infer_signature(matrix, wine.target.to_numpy()),
        input_example=matrix[:3],
        pip_requirements=[],
    )


def shop_table() -> tuple[pd.DataFrame, np.ndarray]:
    """Return customers with a text column, and whether they bought."""
    random, count = np.random.default_rng(0), 500
    shop = pd.DataFrame(
        {
            "customer_id": np.arange(1000, 1000 + count),
            "age": random.integers(18, 90, count),
            "income": random.gamma(2, 2e4, count).round(2),
            "city": random.choice(["Bonn", "Köln", "Ulm"], count),
        }
    )
    return shop, np.where((shop.income > 40_000) ^ (shop.city == "Ulm"), "yes", "no")


def shop_pipeline():
    """Return a pipeline that selects columns by name."""
    parts = [
        ("numbers", StandardScaler(), ["age", "income"]),
        ("texts", OneHotEncoder(handle_unknown="ignore"), ["city"]),
    ]
    return make_pipeline(ColumnTransformer(parts), LogisticRegression(max_iter=1000))


def save_onnx(model, path: Path) -> None:
    """Write a converted model."""
    path.write_bytes(model.SerializeToString())


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(Path(sys.argv[1]))
