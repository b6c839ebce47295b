"""Compares the predictions of published runs with the labels that have become known since.

At the end of each run, before it is published, the whole table of labels is read, and the quality
of every run that the store still has is computed anew. So nothing has to be remembered between
runs, and a label that comes late or again corrects what was said before. A fault of the table does
not keep the run from being published: it is reported beside it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from fourways_api import QualityStatus
from fourways_runtime.io.store.past import microseconds
from fourways_runtime.scoring.late_truth import is_text

from ..truth import MIN_LABELS, metrics_of, moment, read_labels

if TYPE_CHECKING:
    from fourways_api import RuntimeConfig
    from fourways_api.quality import Quality
    from fourways_runtime.io.store.database import Database
    from fourways_runtime.io.store.runs.outcomes import LabelledRun
    from fourways_runtime.scoring.columns import Array

MAX_TRUTH_ROWS = 2_000_000
"""Maximum number of labels since the oldest run in the store: they are held in memory."""


def measure_runs(config: RuntimeConfig, data: Database, key: str, now: datetime) -> str:
    """Compute and record the quality of all published runs; return a remark, or an empty text.

    ``key`` is the deployment's key in the store. Raises WorkloadError.
    """
    from fourways_runtime.io.store.runs import outcomes
    from fourways_runtime.scoring.quality import by_run

    quality = config.quality
    runs = outcomes.published_runs(data, config.namespace, key)
    if quality is None or not runs:
        return ""
    published = np.array([microseconds(run.published_at) for run in runs])
    narrower = "the oldest run in the store: narrow the table, or lower batch.keepRuns"
    labels = read_labels(config, int(published[0]), MAX_TRUTH_ROWS, narrower)
    found = {}
    for run, chosen in zip(runs, by_run(published, labels.keys, labels.times), strict=True):
        own = labels.keys[chosen].tolist(), labels.labels[chosen]
        measured = _measured(config, quality, data, run, *own, now)
        if measured is not None:
            found[run.run_id] = measured
    outcomes.record(data, found, runs)
    return labels.left_out


def _measured(
    config: RuntimeConfig,
    quality: Quality,
    data: Database,
    run: LabelledRun,
    keys: list[Any],
    labels: Array,
    now: datetime,
) -> QualityStatus | None:
    from fourways_runtime.io.store.runs.outcomes import as_values, predictions_of

    known = predictions_of(data, run, quality.output, keys)
    with_prediction = [at for at, key in enumerate(keys) if key in known]
    if len(with_prediction) < MIN_LABELS:
        return None
    text = is_text(config.contract, quality.output)
    predictions = as_values([known[keys[at]] for at in with_prediction], text=text)
    return QualityStatus(
        run=run.name,
        output=quality.output,
        labels=len(with_prediction),
        metrics=metrics_of(quality, predictions, labels[with_prediction]),
        measured_at=moment(now),
    )
