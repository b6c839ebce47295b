"""How well predictions agree with labels that became known later. Pure.

Owns which label belongs to which run, and the formulas. A label belongs to the run that was
published last before its time; of several for one key and run, the one with the latest time counts,
and of those the one that comes last in the table. So late, repeated and unordered labels come to
the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .columns import Array

CALIBRATION_BINS = 10

_EPSILON = float(np.finfo(np.float64).eps)
"""Probabilities are kept this far from 0 and 1, so that a logarithm stays finite."""


def by_run(published: Array, keys: Array, times: Array) -> list[Array]:
    """Return, for each run, the positions of the labels that count for it.

    ``published`` (R,) are the times of the runs in order, ``times`` (N,) those of the labels of
    ``keys`` (N,), in the same unit.
    """
    runs = np.searchsorted(published, times, side="right") - 1
    found: list[Array] = []
    for run in range(len(published)):
        own = np.flatnonzero(runs == run)
        # Sorted by time, equal times in the table's order: the last one of each key stays.
        ordered = own[np.argsort(times[own], kind="stable")]
        last: dict[object, int] = dict(zip(keys[ordered].tolist(), ordered.tolist(), strict=True))
        found.append(np.array(sorted(last.values()), np.int64))
    return found


def measure(metrics: Sequence[str], predictions: Array, labels: Array) -> dict[str, float]:
    """Return the metrics (N,) that are defined: AUC needs both labels, probabilities 0 to 1."""
    found = {}
    for name in metrics:
        value = _METRICS[name](predictions, labels) if len(labels) else None
        if value is not None and np.isfinite(value):
            found[name] = value
    return found


def _auc(predictions: Array, labels: Array) -> float | None:
    """Area under the ROC curve: the Mann-Whitney statistic, with half a point for ties."""
    if not _are_binary(labels):
        return None
    positive = labels == 1
    ones = int(positive.sum())
    zeros = len(labels) - ones
    if not ones or not zeros:
        return None
    _, place, count = np.unique(predictions, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _log_loss(predictions: Array, labels: Array) -> float | None:
    if not _are_binary(labels) or not _are_probabilities(predictions):
        return None
    sure = np.clip(predictions, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.where(labels == 1, np.log(sure), np.log1p(-sure))))


def _calibration(predictions: Array, labels: Array) -> float | None:
    """Return the mean distance, weighted by size, between a bin's probability and its share."""
    if not _are_binary(labels) or not _are_probabilities(predictions):
        return None
    bins = np.minimum((predictions * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    predicted = np.bincount(bins, predictions, CALIBRATION_BINS)
    happened = np.bincount(bins, labels, CALIBRATION_BINS)
    return float(np.abs(predicted - happened).sum() / len(labels))


def _accuracy(predictions: Array, labels: Array) -> float | None:
    text = predictions.dtype == object
    if not text and _are_probabilities(predictions) and _are_binary(labels):
        return float(np.mean((predictions >= 0.5) == (labels == 1)))
    return float(np.mean(predictions == labels))


def _mae(predictions: Array, labels: Array) -> float | None:
    return float(np.mean(np.abs(predictions - labels)))


def _rmse(predictions: Array, labels: Array) -> float | None:
    return float(np.sqrt(np.mean((predictions - labels) ** 2)))


def _are_binary(labels: Array) -> bool:
    return bool(np.isin(labels, (0, 1)).all())


def _are_probabilities(predictions: Array) -> bool:
    return bool((predictions >= 0).all() and (predictions <= 1).all())


_METRICS: dict[str, Callable[[Array, Array], float | None]] = {
    "AUC": _auc,
    "LogLoss": _log_loss,
    "Calibration": _calibration,
    "Accuracy": _accuracy,
    "MAE": _mae,
    "RMSE": _rmse,
}
