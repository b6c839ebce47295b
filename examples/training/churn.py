"""Which customers stop buying? Real transactions of CDNOW, an online record shop, from 1997.

Data: CDNOW_master.txt and CDNOW_sample.txt as included in the package ``lifetimes``: every purchase
until June 1998 of the 23,570 customers who first bought in the first quarter of 1997, and the
numbers of the 2,357 customers of the 1/10 sample (Fader and Hardie, "Forecasting repeat sales at
CDNOW", Interfaces 31, 2001).

The model is trained on customers outside the sample at three past quarter ends and evaluated on the
sample's customers two quarters later: different customers, at a different time. The table to score
is the sample at the last day of the data, when it was not yet known who would come back.
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from .artifacts import FLOAT32, Tolerance, Vector, plain, write_golden

NAME = "churn"
EXPORTED = FLOAT32
# Training on another machine may split a tree differently; a probability changes slightly.
RETRAINED = Tolerance(absolute=0.03, relative=0.0)

HORIZON = pd.Timedelta(days=91)
LEARN_AT = ("1997-06-30", "1997-09-30", "1997-12-31")
JUDGE_AT = "1998-03-31"
SCORE_AT = "1998-06-30"

COUNTS = ["days_since_last", "orders", "orders_91d", "discs"]
NUMBERS = [*COUNTS, "spend", "mean_gap_days"]
COHORTS = ["1997-01", "1997-02", "1997-03"]
LABELS = ("stays", "churns")


def build(folder: Path) -> None:
    """Train, print the held-out quality, and write model, table and golden vectors."""
    everyone, sample = transactions()
    model = train(everyone[~everyone.customer_id.isin(sample)])
    ours = everyone[everyone.customer_id.isin(sample)]
    judge(model, ours)
    table = features(ours, SCORE_AT)
    export(model, folder / "model.onnx")
    pq.write_table(
        pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None),
        folder / "source.parquet",
        compression="zstd",
    )
    write_golden(folder / "golden.jsonl", golden(model, paying(table)))
    print(f"table: {len(table)} customers, {len(table) - len(paying(table))} never paid anything")


def transactions() -> tuple[pd.DataFrame, set[str]]:
    """Return every purchase (customer_id, date, discs, dollars) and the sample's customers."""
    folder = Path(str(distribution("lifetimes").locate_file("lifetimes/datasets")))
    columns = ["customer_id", "date", "discs", "dollars"]
    types = {"customer_id": str, "date": str}
    everyone = pd.read_csv(
        folder / "CDNOW_master.txt", sep=r"\s+", skiprows=1, names=columns, dtype=types
    )
    everyone["date"] = pd.to_datetime(everyone["date"], format="%Y%m%d")
    sample = pd.read_csv(folder / "CDNOW_sample.txt", sep=r"\s+", header=None, dtype=str)
    return everyone, set(sample[0])


def features(purchases: pd.DataFrame, at: str) -> pd.DataFrame:
    """Return one row per customer, computed from the purchases until the day ``at``."""
    day = pd.Timestamp(at)
    past = purchases[purchases.date <= day]
    recent = past[past.date > day - HORIZON]
    # Two receipts on one day are one visit.
    visits = past.groupby("customer_id").date
    by_customer = past.groupby("customer_id")
    orders = visits.nunique()
    first, last = visits.min(), visits.max()
    table = pd.DataFrame({"days_since_last": (day - last).dt.days, "orders": orders})
    table["orders_91d"] = recent.groupby("customer_id").date.nunique()
    table["orders_91d"] = table["orders_91d"].fillna(0)
    table["spend"] = by_customer.dollars.sum()
    table["discs"] = by_customer.discs.sum()
    # Missing for customers who came once: there is no gap to average.
    table["mean_gap_days"] = (last - first).dt.days / (orders - 1).where(orders > 1)
    table = table.astype({name: "int32" if name in COUNTS else "float32" for name in NUMBERS})
    table["cohort"] = first.dt.strftime("%Y-%m")
    return table.rename_axis("customer_id").reset_index()


def paying(table: pd.DataFrame) -> pd.DataFrame:
    """Return the customers that the contract accepts: those who paid something."""
    return table[table.spend > 0]


def churned(purchases: pd.DataFrame, at: str, customers: pd.Series) -> NDArray[np.int64]:
    """Return 1 for each customer without a purchase in the 91 days after ``at``."""
    day = pd.Timestamp(at)
    later = purchases[(purchases.date > day) & (purchases.date <= day + HORIZON)]
    return (~customers.isin(set(later.customer_id))).to_numpy().astype(np.int64)


def train(purchases: pd.DataFrame) -> Pipeline:
    """Fit the pipeline on three quarter ends at once."""
    tables, answers = [], []
    for at in LEARN_AT:
        table = paying(features(purchases, at))
        tables.append(table)
        answers.append(churned(purchases, at, table.customer_id))
    pipeline = make_pipeline(
        ColumnTransformer(
            [
                ("cohort", OneHotEncoder(categories=[COHORTS], sparse_output=False), ["cohort"]),
                ("numbers", "passthrough", NUMBERS),
            ]
        ),
        HistGradientBoostingClassifier(
            max_iter=80,
            learning_rate=0.08,
            max_leaf_nodes=8,
            min_samples_leaf=50,
            early_stopping=False,
            random_state=0,
        ),
    )
    return pipeline.fit(pd.concat(tables), np.concatenate(answers))


def judge(model: Pipeline, purchases: pd.DataFrame) -> None:
    """Print the quality on customers and a quarter that the model has never seen."""
    table = paying(features(purchases, JUDGE_AT))
    truth = churned(purchases, JUDGE_AT, table.customer_id)
    probability = model.predict_proba(table)[:, 1]
    print(f"held out: {len(table)} customers, {truth.mean():.1%} churned")
    print(f"AUC {roc_auc_score(truth, probability):.3f}")
    print(f"AUC of days_since_last alone {roc_auc_score(truth, table.days_since_last):.3f}")
    print(f"Brier score {brier_score_loss(truth, probability):.4f}")
    print(f"Brier score of the base rate {truth.mean() * (1 - truth.mean()):.4f}")


def export(model: Pipeline, path: Path) -> None:
    """Write the pipeline as ONNX: one input per column, probabilities as a plain tensor."""
    inputs = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    onnx = to_onnx(
        model,
        initial_types=[*inputs, ("cohort", StringTensorType([None, 1]))],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    path.write_bytes(onnx.SerializeToString())


def golden(model: Pipeline, table: pd.DataFrame) -> list[Vector]:
    """Return 20 customers, from the most to the least likely to stay, scored by scikit-learn.

    None is within 0.04 of 0.5, where a retrained model might return the other label.
    """
    table = table.assign(probability=model.predict_proba(table)[:, 1])
    table = table[(table.probability - 0.5).abs() > 0.04].sort_values("probability", kind="stable")
    rows = table.iloc[np.linspace(0, len(table) - 1, 20).astype(int)]
    return [
        {
            "inputs": {name: plain(row[name]) for name in [*NUMBERS, "cohort"]},
            "outputs": {
                "churn_probability": plain(row["probability"]),
                "label": LABELS[int(row["probability"] > 0.5)],
            },
        }
        for row in rows.to_dict("records")
    ]


def answers(outputs: dict[str, NDArray[np.generic]]) -> list[dict[str, object]]:
    """Turn what onnxruntime returns into the contract's outputs."""
    return [
        {"churn_probability": float(pair[1]), "label": LABELS[int(label)]}
        for pair, label in zip(outputs["probabilities"], outputs["label"], strict=True)
    ]


def tensors(vectors: list[Vector]) -> dict[str, NDArray[np.generic]]:
    """Turn golden inputs into the model's tensors."""
    values = {name: [[v["inputs"][name]] for v in vectors] for name in [*NUMBERS, "cohort"]}
    return {
        name: np.array(column, dtype=object if name == "cohort" else np.float32)
        for name, column in values.items()
    }
