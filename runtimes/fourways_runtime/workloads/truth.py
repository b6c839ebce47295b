"""Reads the labels of ``spec.quality`` and says how well predictions agree with them.

What batch runs and permanent workers have in common: which prediction a label belongs to is decided
where the predictions are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from fourways_api import Contract, QualityMetric
from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.columns import Array

if TYPE_CHECKING:
    from fourways_api import RuntimeConfig
    from fourways_api.quality import Quality

MIN_LABELS = 30
"""Labels with a prediction that there must be for the metrics to be told."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of the table: keys (N,), labels (N,), times (N,) in microseconds since 1970."""

    keys: Array
    labels: Array
    times: Array
    left_out: str = ""
    """How many rows were left out, and why the first of them."""


def read_labels(config: RuntimeConfig, since: int, most: int, narrower: str) -> Labels:
    """Read the labels from ``since`` (microseconds since 1970) on.

    ``narrower`` ends the error that there are more than ``most`` since then. Raises WorkloadError.
    """
    quality = config.quality
    assert quality is not None, "there is something to compare"  # noqa: S101
    kinds = ("string",) if is_text(config.contract, quality) else ("float64", "bool")
    faults: list[SourceError] = []
    for kind in kinds:
        try:
            return _read(config, quality, kind, since, (most, narrower))
        except SourceError as error:
            # Truth values are no numbers: a table of these is read as what it holds.
            faults.append(error)
    raise faults[0]


def _read(
    config: RuntimeConfig, quality: Quality, kind: str, since: int, limit: tuple[int, str]
) -> Labels:
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
        most, narrower = limit
        if rows > most:
            raise SourceError(f"quality.truth has more than {most:,} labels since {narrower}")
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


def is_text(contract: Contract, quality: Quality) -> bool:
    """Tell whether the output that is compared is a text."""
    return next(o.type for o in contract.outputs if o.name == quality.output) == "string"


def metrics_of(quality: Quality, predictions: Array, labels: Array) -> tuple[QualityMetric, ...]:
    """Return the metrics of predictions (N,) against labels (N,), as status has them."""
    from fourways_runtime.scoring.quality import measure

    found = measure(quality.metrics, predictions, labels)
    return tuple(QualityMetric(name=n, value=float(f"{v:.6g}")) for n, v in found.items())


def moment(at: datetime) -> str:
    """Return a time as status has it: RFC 3339 in UTC, whole seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
