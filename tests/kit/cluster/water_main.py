"""Events of the example stream, from the table that its model was trained on."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from tools.demo.questions import ARTIFACTS

HOURS_BEFORE = 72


def readings(first: int, count: int) -> list[dict[str, Any]]:
    """Return readings of the water main, each with the 72 before it."""
    rows = pq.read_table(ARTIFACTS / "water-flow" / "series.parquet").to_pylist()
    return [
        {
            "reading": rows[i]["reading"],
            "hour": rows[i]["hour"],
            "flow": rows[i]["flow"],
            "before": [row["flow"] for row in rows[i - HOURS_BEFORE : i]],
        }
        for i in range(HOURS_BEFORE + first, HOURS_BEFORE + first + count)
    ]
