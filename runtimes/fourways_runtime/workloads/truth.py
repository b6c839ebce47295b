"""Reads the labels of ``spec.quality`` and says how well predictions agree with them.

What batch runs and permanent workers have in common: which prediction a label belongs to is decided
where the predictions are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from fourways_api import Contract, QualityMetric
from fourways_api.runtime_config import StreamConfig
from fourways_runtime.errors import SourceError
from fourways_runtime.io.sources import open_table
from fourways_runtime.scoring.columns import Array, Reject
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.late_truth import in_share, is_text, share_of

if TYPE_CHECKING:
    from fourways_api import RuntimeConfig
    from fourways_api.quality import Quality

MIN_LABELS = 30
"""Minimum number of labels with a prediction for metrics to be reported."""


_Chunk = tuple[Any, Any, list[Reject]]
"""A pyarrow.RecordBatch of labels, the numbers of its rows, and what was rejected before."""


@dataclass(frozen=True, slots=True)
class _Limit:
    since: int
    most: int
    narrower: str


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
    limit = _Limit(since, most, narrower)
    if quality.truth is None:
        contract = truth_contract(config.contract, quality, _kinds(config.contract, quality)[0])
        return _joined(_topic(config, contract, since), contract, quality, limit)
    faults: list[SourceError] = []
    for kind in _kinds(config.contract, quality):
        contract = truth_contract(config.contract, quality, kind)
        table = open_table(quality.truth, contract, policy=config.fetch, paths=config.paths)
        try:
            chunks = ((each.batch, each.rows, each.rejects) for each in table.chunks())
            return _joined(chunks, contract, quality, limit)
        except SourceError as error:
            # Truth values are no numbers: a table of these is read as what it holds.
            faults.append(error)
    raise faults[0]


def _topic(config: RuntimeConfig, contract: Contract, since: int) -> Iterator[_Chunk]:
    """Yield the labels of a topic like the rows of a table."""
    from .truth_topic import label_chunks

    assert isinstance(config, StreamConfig), "only streams read a topic"  # noqa: S101
    return label_chunks(config, contract, since)


def _joined(
    chunks: Iterable[_Chunk], contract: Contract, quality: Quality, limit: _Limit
) -> Labels:
    decoder, share = Decoder(contract), share_of(quality.share)
    keys: list[Array] = []
    labels: list[Array] = []
    times: list[Array] = []
    rows = refused = 0
    first = ""
    for batch, numbers, rejected in chunks:
        records, rejects = decoder.decode(batch, numbers)
        rejects = [*rejected, *rejects]
        if rejects and not first:
            first = f"row {rejects[0].row}: {rejects[0].field}"
        refused += len(rejects)
        at = np.asarray(records.columns[quality.time])
        late = np.flatnonzero(at >= limit.since)
        if share < 1.0:
            late = late[in_share(np.asarray(records.keys)[late].tolist(), share)]
        rows += len(late)
        if rows > limit.most:
            raise SourceError(
                f"quality.{_origin(quality)} has more than {limit.most:,} labels since "
                f"{limit.narrower}"
            )
        keys.append(np.asarray(records.keys)[late])
        labels.append(np.asarray(records.columns[quality.label])[late])
        times.append(at[late])
    note = ""
    if refused:
        note = f"{refused} rows of quality.{_origin(quality)} were left out, the first: {first}"
    as_numbers = contract.inputs[0].type != "string"
    joined = np.concatenate(labels) if labels else np.empty(0)
    return Labels(
        np.concatenate(keys) if keys else np.empty(0, object),
        joined.astype(np.float64) if as_numbers else joined.astype(object),
        np.concatenate(times) if times else np.empty(0, np.int64),
        note,
    )


def _origin(quality: Quality) -> str:
    return "topic" if quality.truth is None else "truth"


def _kinds(contract: Contract, quality: Quality) -> tuple[str, ...]:
    return ("string",) if is_text(contract, quality.output) else ("float64", "bool")


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


def metrics_of(quality: Quality, predictions: Array, labels: Array) -> tuple[QualityMetric, ...]:
    """Return the metrics of predictions (N,) against labels (N,), as status has them."""
    from fourways_runtime.scoring.quality import measure

    found = measure(quality.metrics, predictions, labels)
    return tuple(QualityMetric(name=n, value=float(f"{v:.6g}")) for n, v in found.items())


def moment(at: datetime) -> str:
    """Return a time as status has it: RFC 3339 in UTC, whole seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
