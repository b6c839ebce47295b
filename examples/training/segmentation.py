"""Which kinds of customers are there? Real purchases at CDNOW, clustered by three plain figures.

Data: the purchases of the churn example, all 23,570 customers. A customer who paid is described by
the time since the last order, the number of orders and the spend. k-means finds five clusters,
which people have named by hand.

The clusters are trained on customers outside the 1/10 sample at the end of 1997 and evaluated on
the sample by what was not known then: what each customer spent in the following six months. The
table to score has all customers on the last day of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import StandardScaler

from .artifacts import FLOAT32, Tolerance, Vector, plain, write_golden
from .churn import paying, transactions

NAME = "segmentation"
EXPORTED = FLOAT32
# Another machine's k-means may stop a step earlier or later; centres move slightly.
RETRAINED = Tolerance(absolute=0.01, relative=0.0)

LEARN_AT = "1997-12-31"
HALF_YEAR = pd.Timedelta(days=182)
WEEK_BEFORE = "1998-06-23"
SCORE_AT = "1998-06-30"

INPUTS = ["months_since_last", "orders", "spend"]
MONTH_DAYS = 30
LONGEST_MONTHS = 12
"""Maximum of months_since_last: beyond it, a customer's row no longer changes."""

SEGMENTS = ("regular", "active", "fading", "once-large", "once-small")
"""Names of the clusters, from the largest spenders to the smallest."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Groups:
    """The fitted scaling and centres; centres in the order of ``SEGMENTS``."""

    scaler: StandardScaler
    centres: Floats

    def predict(self, table: pd.DataFrame) -> tuple[NDArray[np.int64], Floats]:
        """Return each customer's cluster and the distance to its centre, in standard deviations."""
        apart = self.scaler.transform(columns(table))[:, None, :] - self.centres
        distances = np.sqrt((apart**2).sum(axis=2))
        return distances.argmin(axis=1), distances.min(axis=1)


def build(folder: Path) -> None:
    """Train, print the quality of the clusters, and write model, table and golden vectors."""
    everyone, sample = transactions()
    ours = everyone.customer_id.isin(sample)
    groups = fit(figures(everyone[~ours], LEARN_AT))
    judge(groups, everyone[ours])
    table = figures(everyone, SCORE_AT)
    export(groups, folder / "model.onnx")
    pq.write_table(
        pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None),
        folder / "source.parquet",
        compression="zstd",
    )
    write_golden(folder / "golden.jsonl", golden(groups, table))
    before = figures(everyone, WEEK_BEFORE)
    changed = int((table != before).any(axis=1).sum())
    print(f"table: {len(table)} customers, {changed} of them changed within the last week")


def figures(purchases: pd.DataFrame, at: str) -> pd.DataFrame:
    """Return one row per customer who paid, computed from the purchases until the day ``at``."""
    day = pd.Timestamp(at)
    by_customer = purchases[purchases.date <= day].groupby("customer_id")
    months = (day - by_customer.date.max()).dt.days // MONTH_DAYS
    table = pd.DataFrame(
        {
            "months_since_last": months.clip(upper=LONGEST_MONTHS).astype("int32"),
            # Two receipts on one day are one order.
            "orders": by_customer.date.nunique().astype("int32"),
            "spend": by_customer.dollars.sum().astype("float32"),
        }
    )
    return paying(table.rename_axis("customer_id").reset_index())


def columns(table: pd.DataFrame) -> Floats:
    """Return the compared values: orders and spend by ratio, time by difference."""
    logs = np.log(table[["orders", "spend"]].to_numpy(float))
    return np.hstack([table[["months_since_last"]].to_numpy(float), logs])


def fit(table: pd.DataFrame) -> Groups:
    """Find the clusters and sort them in the order of their names."""
    scaler = StandardScaler().fit(columns(table))
    found = KMeans(len(SEGMENTS), n_init=10, random_state=0).fit(scaler.transform(columns(table)))
    centres = found.cluster_centers_[np.argsort(-found.cluster_centers_[:, 2])]
    months, orders, _ = np.column_stack(scaler.inverse_transform(centres))
    # The names imply more than the order by spend: fail if they no longer fit.
    assert (np.diff(orders)[:3] < 0).all()
    assert (np.exp(orders[3:]) < 1.1).all()
    assert max(months[:2]) < min(months[2:])
    return Groups(scaler, centres)


def judge(groups: Groups, purchases: pd.DataFrame) -> None:
    """Print what unseen customers of each cluster spent later, and the variance explained."""
    table = figures(purchases, LEARN_AT)
    day = pd.Timestamp(LEARN_AT)
    later = purchases[(purchases.date > day) & (purchases.date <= day + HALF_YEAR)]
    spent = later.groupby("customer_id").dollars.sum()
    spent = table.customer_id.map(spent).fillna(0.0).to_numpy()
    group, _ = groups.predict(table)
    print(f"held out: {len(table)} customers")
    for place, name in enumerate(SEGMENTS):
        some = group == place
        means = table[some][INPUTS].mean()
        print(
            f"{name}: {some.mean():.0%} of them, {means.months_since_last:.1f} months ago, "
            f"{means.orders:.1f} orders, ${means.spend:.0f}; later {(spent[some] > 0).mean():.0%} "
            f"bought, ${spent[some].mean():.2f} each"
        )
    equal = pd.qcut(table.spend, len(SEGMENTS), labels=False).to_numpy()
    for told, which in (("segments", group), ("five equal groups by spend", equal)):
        print(
            f"{told}: explain {explained(which, spent > 0):.1%} of who bought later, "
            f"{explained(which, spent):.1%} of what was spent"
        )
    scaled = groups.scaler.transform(columns(table))
    print(f"silhouette {silhouette_score(scaled, group):.2f}")


def explained(group: NDArray[np.int64], values: NDArray[np.generic]) -> float:
    """Return the share of the values' variance that lies between the groups."""
    frame = pd.DataFrame({"group": group, "value": values.astype(float)})
    means = frame.groupby("group").value.transform("mean")
    return float(means.var() / frame.value.var())


def export(groups: Groups, path: Path) -> None:
    """Write logarithms, scaling and the nearest centre as one ONNX graph."""
    graph = parser.parse_graph(
        """
        segmentation (float[N, 3] features) => (int64[N] segment, float[N] distance) {
            months, sums = Split <axis = 1> (features, widths)
            logs = Log (sums)
            figures = Concat <axis = 1> (months, logs)
            centred = Sub (figures, mean)
            scaled = Div (centred, scale)
            customers = Unsqueeze (scaled, customers_axis)
            apart = Sub (customers, centres)
            squares = ReduceSumSquare <axes = [2], keepdims = 0> (apart)
            distances = Sqrt (squares)
            segment = ArgMin <axis = 1, keepdims = 0> (distances)
            distance = ReduceMin <axes = [1], keepdims = 0> (distances)
        }
        """
    )
    constants = {
        "widths": np.array([1, 2], np.int64),
        "customers_axis": np.array([1], np.int64),
        "mean": groups.scaler.mean_.astype(np.float32),
        "scale": groups.scaler.scale_.astype(np.float32),
        "centres": groups.centres[None].astype(np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    onnx_model = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    onnx.checker.check_model(onnx_model, full_check=True)
    path.write_bytes(onnx_model.SerializeToString())


def golden(groups: Groups, table: pd.DataFrame) -> list[Vector]:
    """Return four customers of each cluster, from the most typical to the least, by scikit-learn.

    None is equally near to another cluster's centre, where a retrained model might differ.
    """
    group, distance = groups.predict(table)
    table = table.assign(group=group, distance=distance)
    apart = groups.scaler.transform(columns(table))[:, None, :] - groups.centres
    nearest = np.sort(np.sqrt((apart**2).sum(axis=2)), axis=1)
    clear = table[nearest[:, 1] - nearest[:, 0] > 0.1].sort_values("distance", kind="stable")
    found = []
    for place, name in enumerate(SEGMENTS):
        some = clear[clear.group == place]
        rows = some.iloc[np.linspace(0, len(some) - 1, 4).astype(int)]
        found += [
            {
                "inputs": {field: plain(row[field]) for field in INPUTS},
                "outputs": {"segment": name, "distance": plain(row["distance"])},
            }
            for row in rows.to_dict("records")
        ]
    return found


def answers(outputs: dict[str, NDArray[np.generic]]) -> list[dict[str, object]]:
    """Turn what onnxruntime returns into the contract's outputs."""
    return [
        {"segment": SEGMENTS[int(segment)], "distance": float(distance)}
        for segment, distance in zip(outputs["segment"], outputs["distance"], strict=True)
    ]


def tensors(vectors: list[Vector]) -> dict[str, NDArray[np.generic]]:
    """Turn golden inputs into the model's only tensor."""
    rows = [[vector["inputs"][name] for name in INPUTS] for vector in vectors]
    return {"features": np.array(rows, np.float32)}
