"""The checks of a finished run before it is published: row counts, missing values and drift.

Each check is one line in :func:`check`. The values compared are already in the store: a
deterministic sample of the rows represents all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fourways_runtime.errors import CheckFailed
from fourways_runtime.io.store import layout
from fourways_runtime.io.store.runs import samples
from fourways_runtime.scoring.columns import Array

if TYPE_CHECKING:
    from fourways_api.modes import Checks
    from fourways_runtime.io.store.base import PublishedRun
    from fourways_runtime.io.store.runs.ledger import RunLedger
    from fourways_runtime.io.store.runs.publish import Sealed

_LEAST = 1e-4
"""Share assumed for an empty bin, so that the index stays finite."""

_DECILES = np.arange(0.1, 0.95, 0.1)


def check(checks: Checks, ledger: RunLedger, sealed: Sealed, before: PublishedRun | None) -> None:
    """Check a sealed run against the spec.

    Raises:
        CheckFailed: The run fails a check; the error names each failed check.

    """
    faults = [
        *_too_few(checks, sealed),
        *_rows_changed(checks, sealed, before),
        *_missing(checks, ledger, sealed),
        *_drifted(checks, ledger, before),
    ]
    if faults:
        raise CheckFailed("; ".join(faults))


def _too_few(checks: Checks, sealed: Sealed) -> Iterator[str]:
    if checks.min_rows is not None and sealed.rows < checks.min_rows:
        yield f"{sealed.rows} predictions, minRows is {checks.min_rows}"


def _rows_changed(checks: Checks, sealed: Sealed, before: PublishedRun | None) -> Iterator[str]:
    if checks.max_row_change is None or before is None or not before.rows:
        return
    change = abs(sealed.rows - before.rows) / before.rows
    if change > _share(checks.max_row_change):
        yield (
            f"{sealed.rows} predictions where run {before.name} has {before.rows}: "
            f"{change:.2%} apart, maxRowChange is {checks.max_row_change}"
        )


def _missing(checks: Checks, ledger: RunLedger, sealed: Sealed) -> Iterator[str]:
    if checks.max_missing is None or not sealed.rows or not ledger.table:
        return
    outputs = [c for c in layout.columns(ledger.run.contract)[1:] if not c.shape]
    counted = [column for column in outputs if column.kind in samples.BLANK]
    if not counted:
        return
    counts = samples.counts_of(ledger.data, ledger.run_id, counted)
    for column, count in zip(counted, counts, strict=True):
        share = count / sealed.rows
        if share > _share(checks.max_missing):
            yield (
                f"{column.name}: {share:.2%} of the values are missing, "
                f"maxMissing is {checks.max_missing}"
            )


def _drifted(checks: Checks, ledger: RunLedger, before: PublishedRun | None) -> Iterator[str]:
    if checks.max_drift is None or before is None or not ledger.table:
        return
    run = ledger.run
    earlier = samples.run_id_of(ledger.data, run.namespace, run.deployment, before.name)
    if earlier is None:
        return
    theirs = {column.name: column for column in layout.columns(before.contract)[1:]}
    for column in layout.columns(run.contract)[1:]:
        if theirs.get(column.name) != column or column.shape:
            continue
        old, new = (
            samples.values_of(ledger.data, run_id, column, rows)
            for run_id, rows in ((earlier, before.rows), (ledger.run_id, None))
        )
        drift = stability_index(old, new)
        if drift > checks.max_drift:
            yield (
                f"{column.name}: the distribution is {drift:.3g} from that of run {before.name}, "
                f"maxDrift is {checks.max_drift:g}"
            )


def stability_index(old: Array, new: Array) -> float:
    """Return the population stability index of ``new`` against ``old``, each (N,).

    The index is the sum over bins of (q - p) * ln(q / p). Numbers are binned by the deciles of
    ``old``; each distinct text is a bin of its own.
    """
    if not len(old) or not len(new):
        return 0.0
    if old.dtype == object:
        labels = {label: at for at, label in enumerate(dict.fromkeys([*old, *new]))}
        places = [np.array([labels[text] for text in side]) for side in (old, new)]
        bins = len(labels)
    else:
        edges = np.unique(np.quantile(old, _DECILES, method="inverted_cdf"))
        places = [np.searchsorted(edges, side) for side in (old, new)]
        bins = len(edges) + 1
    shares = [np.bincount(side, minlength=bins) / len(side) for side in places]
    p, q = (np.maximum(share, _LEAST) for share in shares)
    return float(np.sum((q - p) * np.log(q / p)))


def _share(text: str) -> float:
    return float(text.removesuffix("%")) / 100
