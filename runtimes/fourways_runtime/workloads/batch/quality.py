"""Compares the predictions of published runs with the labels that have become known since.

At the end of each run, before it is published, the whole table of labels is read, and the quality
of every run that the store still has is computed anew. So nothing has to be remembered between
runs, and a label that comes late or again corrects what was said before. A fault of the table does
not keep the run from being published: it is reported beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from fourways_api import Contract, QualityMetric, QualityStatus
from fourways_runtime.errors import SourceError

if TYPE_CHECKING:
    from fourways_api import RuntimeConfig
    from fourways_api.quality import Quality
    from fourways_runtime.io.store.database import Database
    from fourways_runtime.io.store.runs.outcomes import LabelledRun
    from fourways_runtime.scoring.columns import Array

MAX_TRUTH_ROWS = 2_000_000
"""Maximum number of labels since the oldest run in the store: they are held in memory."""

MIN_LABELS = 30
"""Labels that a run must have for its quality to be told."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of the table: keys (N,), labels (N,), times (N,) in microseconds since 1970."""

    keys: Array
    labels: Array
    times: Array
    left_out: str = ""
    """How many rows were left out, and why the first of them."""


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
    published = np.array([_microseconds(run.published_at) for run in runs])
    labels = read_labels_of(config, quality, int(published[0]))
    found = {}
    for run, chosen in zip(runs, by_run(published, labels.keys, labels.times), strict=True):
        own = labels.keys[chosen].tolist(), labels.labels[chosen]
        told = _measured(config, quality, data, run, *own, now)
        if told is not None:
            found[run.run_id] = told
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
    from fourways_runtime.scoring.quality import measure

    known = predictions_of(data, run, quality.output, keys)
    with_prediction = [at for at, key in enumerate(keys) if key in known]
    if len(with_prediction) < MIN_LABELS:
        return None
    text = _is_text(config.contract, quality)
    predictions = as_values([known[keys[at]] for at in with_prediction], text=text)
    found = measure(quality.metrics, predictions, labels[with_prediction])
    return QualityStatus(
        run=run.name,
        output=quality.output,
        labels=len(with_prediction),
        metrics=tuple(QualityMetric(name=n, value=float(f"{v:.6g}")) for n, v in found.items()),
        measured_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def read_labels_of(config: RuntimeConfig, quality: Quality, since: int) -> Labels:
    """Read the labels from ``since`` (microseconds since 1970) on. Raises WorkloadError."""
    kinds = ("string",) if _is_text(config.contract, quality) else ("float64", "bool")
    faults: list[SourceError] = []
    for kind in kinds:
        try:
            return _read(config, quality, kind, since)
        except SourceError as error:
            # Truth values are no numbers: a table of these is read as what it holds.
            faults.append(error)
    raise faults[0]


def _read(config: RuntimeConfig, quality: Quality, kind: str, since: int) -> Labels:
    from fourways_runtime.io.sources import open_table
    from fourways_runtime.scoring.decode import Decoder

    contract = truth_contract(config.contract, quality, kind)
    table = open_table(quality.truth, contract, policy=config.fetch, paths=config.paths)
    decoder = Decoder(contract)
    keys: list[Array] = []
    labels: list[Array] = []
    times: list[Array] = []
    rows = refused = 0
    first = ""
    for chunk in table.chunks():
        records, rejects = decoder.decode(chunk.batch, chunk.rows)
        rejects = [*chunk.rejects, *rejects]
        if rejects and not first:
            first = f"row {rejects[0].row}: {rejects[0].field}"
        refused += len(rejects)
        at = np.asarray(records.columns[quality.time])
        late = np.flatnonzero(at >= since)
        rows += len(late)
        if rows > MAX_TRUTH_ROWS:
            raise SourceError(
                f"quality.truth has more than {MAX_TRUTH_ROWS:,} labels since the oldest run in "
                "the store: narrow the table, or lower batch.keepRuns"
            )
        keys.append(np.asarray(records.keys)[late])
        labels.append(np.asarray(records.columns[quality.label])[late])
        times.append(at[late])
    told = f"{refused} rows of quality.truth were left out, the first: {first}" if refused else ""
    as_numbers = kind != "string"
    joined = np.concatenate(labels) if labels else np.empty(0)
    return Labels(
        np.concatenate(keys) if keys else np.empty(0, object),
        joined.astype(np.float64) if as_numbers else joined.astype(object),
        np.concatenate(times) if times else np.empty(0, np.int64),
        told,
    )


def truth_contract(contract: Contract, quality: Quality, kind: str) -> Contract:
    """Return a contract whose records are the rows of the table of labels."""
    inputs: list[dict[str, Any]] = [
        {"name": quality.label, "type": kind},
        {"name": quality.time, "type": "timestamp_us"},
    ]
    return Contract.model_validate(
        {
            "entityKey": contract.entity_key.to_json(),
            "inputs": inputs,
            "outputs": [{"name": "unread_output", "type": "float32"}],
        }
    )


def _is_text(contract: Contract, quality: Quality) -> bool:
    return next(o.type for o in contract.outputs if o.name == quality.output) == "string"


def _microseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)
