"""How well the predictions of published runs agree with labels, beside the runs in the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from fourways_api import QualityStatus
from fourways_runtime.scoring.columns import Array, Key

from .. import layout
from ..database import Database, quoted, table

_AT_ONCE = 500
_RUNS = """
    SELECT r.id, r.name, r.published_at, r.table_name, r.contract FROM @runs r
    WHERE r.namespace = ? AND r.deployment = ? AND r.state = 'published' AND r.table_name <> ''
    ORDER BY r.published_at, r.id"""


@dataclass(frozen=True, slots=True)
class LabelledRun:
    """A published run whose predictions are in the store."""

    run_id: int
    name: str
    published_at: datetime
    view: str
    contract: str


def published_runs(data: Database, namespace: str, key: str) -> list[LabelledRun]:
    """Return the published runs of a deployment's key, the oldest first."""
    found = []
    for run_id, name, published, view, contract in data.rows(_RUNS, (namespace, key)):
        at = datetime.fromisoformat(published) if isinstance(published, str) else published
        found.append(LabelledRun(int(run_id), str(name), at, str(view), str(contract)))
    return found


def predictions_of(
    data: Database, run: LabelledRun, output: str, keys: list[Key]
) -> dict[Key, Any]:
    """Return the predictions of an output for some keys; those without one are left out."""
    first, *columns = layout.columns(layout.load_contract(run.contract))
    column = next((each for each in columns if each.name == output and not each.shape), None)
    if column is None:
        return {}  # An earlier contract has no such output.
    key, value, view = quoted(first.identifier), quoted(column.identifier), table(run.view)
    found: dict[Key, Any] = {}
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        query = f"SELECT {key}, {value} FROM {view} WHERE {key} IN ({marks})"  # noqa: S608
        found.update(data.rows(query, some))
    return found


def as_values(found: list[Any], *, text: bool) -> Array:
    """Return predictions (N,) as numbers, or as texts."""
    return np.array(found, object) if text else np.array(found, np.float64)


def record(data: Database, found: dict[int, QualityStatus], runs: list[LabelledRun]) -> None:
    """Replace what is known of the quality of these runs."""
    with data.transaction():
        for run in runs:
            row = (run.run_id, layout.QUALITY_ROW)
            data.change("DELETE FROM @profiles WHERE run_id = ? AND chunk = ?", row)
        for run_id, quality in found.items():
            text = quality.model_dump_json(by_alias=True, exclude_none=True)
            data.change(
                "INSERT INTO @profiles VALUES (?, ?, ?)", (run_id, layout.QUALITY_ROW, text)
            )
