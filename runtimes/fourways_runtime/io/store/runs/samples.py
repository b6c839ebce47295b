"""What the checks of a run read of its predictions and of those of the previous run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fourways_runtime.scoring.columns import Array

from ...table_columns import TableColumn
from .. import layout
from ..database import Database, quoted, table

SAMPLE_ROWS = 100_000
"""Number of rows whose values represent the distribution of all rows."""

BLANK = {"string": "''", "float16": "'NaN'", "float32": "'NaN'", "float64": "'NaN'"}
"""How a missing value is stored, by type, as SQL."""


def run_id_of(data: Database, namespace: str, deployment: str, name: str) -> int | None:
    """Return the id of a run whose predictions still exist; None if there is none."""
    found = data.rows(
        "SELECT id, table_name FROM @runs WHERE namespace = ? AND deployment = ? AND name = ?",
        (namespace, deployment, name),
    )
    return int(found[0][0]) if found and found[0][1] else None


def counts_of(data: Database, run_id: int, columns: Sequence[TableColumn]) -> list[int]:
    """Return the number of missing values of each column; the types must be those of BLANK."""
    sums = ", ".join(
        f"sum(CASE WHEN {quoted(c.identifier)} = {BLANK[c.kind]} THEN 1 ELSE 0 END)"
        for c in columns
    )
    (counts,) = data.rows(f"SELECT {sums} FROM {_view(data, run_id)}")  # noqa: S608
    return [int(count or 0) for count in counts]


def values_of(data: Database, run_id: int, column: TableColumn, rows: int | None) -> Array:
    """Return about SAMPLE_ROWS values (N,) of a column of a run with ``rows`` rows.

    If ``rows`` is None, the rows are counted.
    """
    view = _view(data, run_id)
    if rows is None:
        ((rows,),) = data.rows(f"SELECT count(*) FROM {view}")  # noqa: S608
    position = quoted(layout.POSITION)
    part = min(65_536, SAMPLE_ROWS * 65_536 // max(1, int(rows or 1)) + 1)
    # Sampled by a multiplicative hash of the position (Knuth), so that the table's order has no
    # effect.
    found = data.rows(
        f"SELECT {quoted(column.identifier)} FROM {view} "  # noqa: S608
        f"WHERE (((({position} & 2147483647) * 2654435761) >> 15) & 65535) < ?",
        (part,),
    )
    values: list[Any] = [value for (value,) in found]
    if column.kind == "string":
        return np.array(values, object)
    return np.array([float(value) for value in values])


def _view(data: Database, run_id: int) -> str:
    ((name,),) = data.rows("SELECT table_name FROM @runs WHERE id = ?", (run_id,))
    return table(str(name))
