"""Score rows so that one at which the model hangs is found, named and rejected.

A call that does not return ends the process, so what it worked on is noted in the ledger before.
The worker that claims the chunk next scores those rows one by one. If one of them hangs again, it
is the row, and the worker after that rejects it: the run goes on without it. Status shows its
position, and only the rejects in the store show its key.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fourways_runtime.model_watch import WATCH
from fourways_runtime.scoring.columns import Array, Predictions, Reject, Scored

if TYPE_CHECKING:
    import pyarrow as pa

    from fourways_runtime.io.store.runs.ledger import RunLedger
    from fourways_runtime.io.store.runs.plan import Claim
    from fourways_runtime.scoring.table_pipeline import TablePipeline

HANGS = "the model does not return for this row"


def score_rows(
    pipeline: TablePipeline, ledger: RunLedger, claim: Claim, batch: pa.RecordBatch, rows: Array
) -> Scored:
    """Score a piece of a claimed chunk; ``rows`` (N,) are the positions of its rows."""
    if not claim.split.hung or not len(rows):
        return _watched(pipeline, ledger, claim, batch, rows)
    parts = []
    for start, end in _parts(claim, rows):
        some, at = batch.slice(start, end - start), rows[start:end]
        if [int(at[0])] * 2 in claim.split.hung:
            key = some.column(pipeline.contract.entity_key.name)[0].as_py()
            shown_key = None if key is None else str(key)
            nothing = _watched(pipeline, ledger, claim, some.slice(0, 0), at[:0])
            reject = Reject(int(at[0]), shown_key, "row", HANGS)
            parts.append(Scored(nothing.predictions, [reject]))
        else:
            parts.append(_watched(pipeline, ledger, claim, some, at))
    return _joined(parts)


def _watched(
    pipeline: TablePipeline, ledger: RunLedger, claim: Claim, batch: pa.RecordBatch, rows: Array
) -> Scored:
    if not len(rows):
        return pipeline.score(batch, rows)
    # A row at which the model fails is a reject, which maxRejects counts.
    first, last = int(rows[0]), int(rows[-1])
    where = (
        f"chunk {claim.number} (attempt {claim.attempt}), {claim.split.describe_rows(first, last)}"
    )
    with WATCH.doing("scoring", where, partial(ledger.note_hang, claim.number, first, last)):
        return pipeline.score(batch, rows, isolating=True)


def _parts(claim: Claim, rows: Array) -> Iterator[tuple[int, int]]:
    """Cut a piece: each row between positions where the model hung is a part of its own."""
    alone = np.zeros(len(rows), dtype=bool)
    for first, last in claim.split.hung:
        alone |= (rows >= first) & (rows <= last)
    cut = np.flatnonzero(alone[1:] | alone[:-1]) + 1
    ends = [0, *cut.tolist(), len(rows)]
    yield from itertools.pairwise(ends)


def _joined(parts: list[Scored]) -> Scored:
    found = [part.predictions for part in parts]
    columns = {
        name: np.concatenate([np.asarray(each.columns[name]) for each in found])
        for name in found[0].columns
    }
    keys = np.concatenate([np.asarray(each.keys) for each in found])
    rows = np.concatenate([each.rows for each in found])
    rejects = [reject for part in parts for reject in part.rejects]
    given = [part.inputs for part in parts if part.inputs]
    inputs = {name: np.concatenate([each[name] for each in given]) for name in (given or [{}])[0]}
    return Scored(Predictions(keys, rows, columns), rejects, inputs)
