"""The profiles of a run: counts of each chunk's records, and how all of them differ from training.

A chunk's counts are recorded with it, so a run that is resumed has those of all its chunks. When
the run is published, the result of the comparison takes their place.
"""

from __future__ import annotations

from fourways_api import DriftStatus
from fourways_runtime.scoring.profile import ProfileCounts

from ..database import Database
from ..layout import DRIFT_ROW


def add_counts(data: Database, run_id: int, chunk: int, counts: ProfileCounts) -> None:
    """Record the counts of a chunk, in the caller's transaction."""
    data.change("INSERT INTO @profiles VALUES (?, ?, ?)", (run_id, chunk, counts.to_json()))


def counts_of(data: Database, run_id: int) -> ProfileCounts:
    """Return the counts of all recorded chunks."""
    whole = ProfileCounts()
    query = "SELECT document FROM @profiles WHERE run_id = ? AND chunk >= 0 ORDER BY chunk"
    for (text,) in data.rows(query, (run_id,)):
        whole.add(ProfileCounts.from_json(text))
    return whole


def settle(data: Database, run_id: int, found: DriftStatus | None) -> None:
    """Replace the counts by the result of the comparison."""
    with data.transaction():
        data.change("DELETE FROM @profiles WHERE run_id = ? AND chunk >= ?", (run_id, DRIFT_ROW))
        if found is not None:
            text = found.model_dump_json(by_alias=True, exclude_none=True)
            data.change("INSERT INTO @profiles VALUES (?, ?, ?)", (run_id, DRIFT_ROW, text))
