"""Judges whether scored records are distributed as those of the training.

The population stability index of two samples is the sum over bins of (q - p) * ln(q / p). Under
equal distributions it is about (1/n + 1/m) times a chi-squared variable with one degree of freedom
less than there are bins (Yurdakul and Naranjo, "Statistical Properties of the Population Stability
Index", Journal of Risk Model Validation 14 (4), 2020). A field has drifted if its index is above
the limit of the spec and above what chance explains: the quantile of that variable at
:data:`CHANCE`, divided among all fields compared. So a small window needs a large difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np

from fourways_api import DriftStatus, FieldDrift
from fourways_api.status import MAX_DRIFTS_REPORTED

from .columns import Array
from .profile import FieldCounter, ProfileCounts, RecordProfiler

CHANCE = 1e-5
"""Probability of an alarm at one comparison of all fields, if nothing has changed."""

MIN_RECORDS = 50
"""Records below which nothing is judged."""

_EMPTY = 0.5
"""Count assumed for a bin that only the other sample has, so that the index stays finite."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The difference between two samples of one field."""

    psi: float
    ks: float | None
    by_chance: float
    """The index that equal distributions exceed with the probability asked for."""


def divergence(
    expected: Array,
    observed: Array,
    *,
    ordered: bool,
    chance: float = CHANCE,
    observations: float | None = None,
) -> Divergence:
    """Compare counts by bin (bins,), of which the last is that of the missing values.

    ``observations`` is the number of records behind ``observed``, if it is not their sum.
    """
    m, total = float(expected.sum()), float(observed.sum())
    n = total if observations is None else observations
    if not m or not total or not n:
        return Divergence(0.0, None, np.inf)
    used = (expected > 0) | (observed > 0)
    p = np.maximum(expected[used], _EMPTY) / m
    q = np.maximum(observed[used] / total, _EMPTY / n)
    psi = float(np.sum((q - p) * np.log(q / p)))
    ks = None
    if ordered and expected[:-1].sum() and observed[:-1].sum():
        steps = (np.cumsum(each[:-1]) / each[:-1].sum() for each in (expected, observed))
        ks = float(np.abs(np.subtract(*steps)).max())
    degrees = max(1, int(used.sum()) - 1)
    return Divergence(psi, ks, chi_squared(1 - chance, degrees) * (1 / n + 1 / m))


def chi_squared(share: float, degrees: int) -> float:
    """Return a quantile of the chi-squared distribution, by Wilson and Hilferty's formula."""
    z, part = NormalDist().inv_cdf(share), 2 / (9 * degrees)
    return degrees * float(1 - part + z * sqrt(part)) ** 3


def compare(
    profiler: RecordProfiler, counts: ProfileCounts, max_drift: float
) -> tuple[FieldDrift, ...]:
    """Compare all fields; those that drifted come first, then by their index.

    Fields of fewer than :data:`MIN_RECORDS` records are left out.
    """
    sides: tuple[tuple[Literal["input", "output"], list[FieldCounter], dict[str, Array]], ...] = (
        ("input", profiler.inputs, counts.inputs),
        ("output", profiler.outputs, counts.outputs),
    )
    chance = CHANCE / max(1, len(profiler.inputs) + len(profiler.outputs))
    share = counts.effective / counts.records if counts.records else 0.0
    found = []
    for side, counters, columns in sides:
        for each in counters:
            observed = columns.get(each.name)
            if observed is None or len(observed) != each.bins:
                continue
            total = float(observed.sum())
            if total * share < MIN_RECORDS:
                continue
            one = divergence(
                each.expected,
                observed,
                ordered=each.ordered,
                chance=chance,
                observations=total * share,
            )
            drifted = one.psi > max_drift and one.psi > one.by_chance
            found.append(
                FieldDrift(
                    name=each.name,
                    side=side,
                    psi=_rounded(one.psi),
                    ks=None if one.ks is None else _rounded(one.ks),
                    missing=_rounded(float(observed[-1]) / total),
                    drifted=drifted,
                )
            )
    return tuple(sorted(found, key=lambda d: (not d.drifted, -d.psi)))


def summarised(
    fields: tuple[FieldDrift, ...], counts: ProfileCounts, now: datetime
) -> DriftStatus | None:
    """Return the status of a comparison; None if nothing was compared."""
    if not fields:
        return None
    all_records = counts.records + counts.rejects
    return DriftStatus(
        fields=fields[:MAX_DRIFTS_REPORTED],
        drifted=sum(each.drifted for each in fields),
        records=round(counts.effective),
        rejects=_rounded(min(1.0, counts.rejects / all_records)) if all_records else 0.0,
        measured_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _rounded(value: float) -> float:
    return float(f"{max(0.0, value):.3g}")
