"""Labels that come late: a table of them, and an offline count of how well predictions agree."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.kit import offline_metrics
from tests.kit.batch_world import World

NEVER = datetime(1970, 1, 1, tzinfo=UTC)

Label = tuple[str, Any, datetime]
"""Key, label and the time that it is about."""

Predicted = tuple[datetime, dict[str, Any]]
"""When predictions were made, by key; None for a key whose prediction was deleted."""


def truth(world: World, rows: list[Label]) -> None:
    keys, labels, times = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table(
        {"id": pa.array(keys, pa.string()), "happened": pa.array(labels, pa.int64()),
         "at": pa.array(times, pa.timestamp("us", tz="UTC"))}
    )  # fmt: skip
    pq.write_table(table, world.file("truth.parquet"))


def offline(labels: list[Label], batches: list[Predicted], since: datetime) -> dict[str, float]:
    """Count by the rule in plain Python, label by label."""
    chosen: dict[tuple[str, datetime], tuple[datetime, Any, float]] = {}
    for key, label, at in labels:
        before = [(made, found[key]) for made, found in batches if key in found and made <= at]
        made, value = max(before, key=lambda each: each[0], default=(NEVER, None))
        if value is None or made < since:
            continue
        known = chosen.get((key, made))
        if known is None or known[0] <= at:
            chosen[key, made] = (at, label, value)
    happened = np.array([label for _, label, _ in chosen.values()], float)
    told = np.array([value for _, _, value in chosen.values()], float)
    bins = np.minimum((told * 10).astype(int), 9)
    calibration = sum(
        abs(told[bins == low].mean() - happened[bins == low].mean()) * (bins == low).mean()
        for low in set(bins)
    )
    return {
        "labels": len(chosen),
        "AUC": offline_metrics.auc(happened, told),
        "MAE": offline_metrics.mae(happened, told),
        "LogLoss": offline_metrics.log_loss(happened, told),
        "Calibration": calibration,
    }
