"""Will the customer at the checkout come back within 91 days? Real purchases at CDNOW.

Data: the purchases of the churn example, one row per visit. The checkout has the basket; the
customer's past comes from a database, as of the previous night. So the model is trained on exactly
these two: each visit with the sums over the earlier visits.

It is trained on customers outside the 1/10 sample, visits of 1997, and evaluated on the sample's
visits in the first quarter of 1998: different customers, at a different time. The feature table has
the sample's values on the morning after the last day of the data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, roc_auc_score

from .artifacts import FLOAT32, Tolerance, Vector, plain, write_golden
from .churn import HORIZON, transactions

NAME = "come-back"
EXPORTED = FLOAT32
# Training on another machine may split a tree differently; a probability changes slightly.
RETRAINED = Tolerance(absolute=0.03, relative=0.0)

LEARN_UNTIL = "1997-12-31"
JUDGE = ("1998-01-01", "1998-03-31")
GOLDEN = ("1998-04-01", "1998-06-30")
MORNING_AFTER = pd.Timestamp("1998-07-01")

BASKET = ["basket_dollars", "basket_discs"]
PAST = ["orders", "spend", "discs", "days_since_last", "mean_gap_days"]
INPUTS = [*BASKET, *PAST]


def build(folder: Path) -> None:
    """Train, print the held-out quality, and write model, feature table and golden vectors."""
    everyone, sample = transactions()
    seen = visits(everyone)
    ours = seen.customer_id.isin(sample)
    learn = seen[~ours & (seen.date <= LEARN_UNTIL)]
    model = train(learn)
    judge(model, seen[ours & seen.date.between(*JUDGE)])
    export(model, folder / "model.onnx")
    table = past_at(everyone[everyone.customer_id.isin(sample)])
    pq.write_table(
        pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None),
        folder / "features.parquet",
        compression="zstd",
    )
    shown = pd.concat([seen[ours & seen.date.between(*GOLDEN)], seen[ours & (seen.orders == 0)]])
    write_golden(folder / "golden.jsonl", golden(model, shown))
    print(f"feature table: {len(table)} customers")


def visits(purchases: pd.DataFrame) -> pd.DataFrame:
    """Return one row per visit: its basket, the customer's past, and whether they came back."""
    # Two receipts on one day are one visit.
    days = purchases.groupby(["customer_id", "date"], as_index=False)[["discs", "dollars"]].sum()
    by_customer = days.groupby("customer_id")
    table = days[["customer_id", "date"]].copy()
    table["basket_dollars"], table["basket_discs"] = days.dollars, days.discs
    table["orders"] = by_customer.cumcount()
    table["spend"] = by_customer.dollars.cumsum() - days.dollars
    table["discs"] = by_customer.discs.cumsum() - days.discs
    before = by_customer.date.shift()
    table["days_since_last"] = (days.date - before).dt.days
    first = by_customer.date.transform("min")
    table["mean_gap_days"] = _mean_gap(first, before, table.orders)
    table["came_back"] = (by_customer.date.shift(-1) - days.date) <= HORIZON
    return table.astype(dict.fromkeys(INPUTS, "float32"))


def past_at(purchases: pd.DataFrame) -> pd.DataFrame:
    """Return one row per customer: the past as of a visit on the morning after the data ends."""
    days = purchases.groupby(["customer_id", "date"], as_index=False)[["discs", "dollars"]].sum()
    by_customer = days.groupby("customer_id")
    first, last = by_customer.date.min(), by_customer.date.max()
    table = pd.DataFrame({"orders": by_customer.size()})
    table["spend"] = by_customer.dollars.sum().astype("float32")
    table["discs"] = by_customer.discs.sum()
    table["days_since_last"] = (MORNING_AFTER - last).dt.days.astype("float32")
    table["mean_gap_days"] = _mean_gap(first, last, table.orders).astype("float32")
    table = table.astype({"orders": "int32", "discs": "int32"})
    return table.rename_axis("customer_id").reset_index()


def _mean_gap(first: pd.Series, last: pd.Series, orders: pd.Series) -> pd.Series:
    # Missing for customers who came once or never: there is no gap to average.
    return (last - first).dt.days / (orders - 1).where(orders > 1)


def train(table: pd.DataFrame) -> HistGradientBoostingClassifier:
    """Fit on visits; the model handles missing values itself."""
    model = HistGradientBoostingClassifier(
        max_iter=80,
        learning_rate=0.08,
        max_leaf_nodes=8,
        min_samples_leaf=50,
        early_stopping=False,
        random_state=0,
    )
    return model.fit(table[INPUTS].to_numpy(), table.came_back.to_numpy())


def judge(model: HistGradientBoostingClassifier, table: pd.DataFrame) -> None:
    """Print the quality on visits of customers and a quarter that the model has never seen."""
    truth = table.came_back.to_numpy()
    probability = model.predict_proba(table[INPUTS].to_numpy())[:, 1]
    print(f"held out: {len(table)} visits, {truth.mean():.1%} came back")
    print(f"AUC {roc_auc_score(truth, probability):.3f}")
    print(f"AUC of the number of orders alone {roc_auc_score(truth, table.orders):.3f}")
    print(f"AUC of the basket's dollars alone {roc_auc_score(truth, table.basket_dollars):.3f}")
    print(f"Brier score {brier_score_loss(truth, probability):.4f}")
    print(f"Brier score of the base rate {truth.mean() * (1 - truth.mean()):.4f}")


def export(model: HistGradientBoostingClassifier, path: Path) -> None:
    """Write the model as ONNX: one input of seven columns, probabilities as a plain tensor."""
    onnx = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, len(INPUTS)]))],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    path.write_bytes(onnx.SerializeToString())


def golden(model: HistGradientBoostingClassifier, table: pd.DataFrame) -> list[Vector]:
    """Return 20 visits, from the least to the most likely to be repeated, scored by
    scikit-learn."""
    table = table.assign(probability=model.predict_proba(table[INPUTS].to_numpy())[:, 1])
    table = table.sort_values("probability", kind="stable")
    rows = table.iloc[np.linspace(0, len(table) - 1, 20).astype(int)]
    whole = {"basket_discs", "orders", "discs"}
    return [
        {
            "inputs": {n: int(row[n]) if n in whole else plain(row[n]) for n in INPUTS},
            "outputs": {"come_back_probability": plain(row["probability"])},
        }
        for row in rows.to_dict("records")
    ]


def answers(outputs: dict[str, NDArray[np.generic]]) -> list[dict[str, object]]:
    """Turn what onnxruntime returns into the contract's outputs."""
    return [{"come_back_probability": float(pair[1])} for pair in outputs["probabilities"]]


def tensors(vectors: list[Vector]) -> dict[str, NDArray[np.generic]]:
    """Turn golden inputs into the model's only tensor."""
    rows = [[v["inputs"][name] for name in INPUTS] for v in vectors]
    return {"features": np.array(rows, np.float32)}
