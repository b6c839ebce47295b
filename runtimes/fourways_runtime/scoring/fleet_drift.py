"""Adds up what devices tell of their records, and judges it as records of other modes are.

A device is not trusted. What it tells is bounded before it gets here (:mod:`.device_report`), and
its weight is bounded here, by the credentials that it has:

* Callers are the unit: devices with the same credentials count as one.
* A caller counts for at most four times as many records as the caller in the middle of all, or for
  :data:`LEAST_RECORDS` if that is more.
* A field has drifted only if it has done so without any single caller too, as long as the others
  have enough records to be compared.

Pure: times are passed in.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from fourways_api import DriftStatus, FieldDrift

from .columns import Array
from .device_report import DeviceReport
from .drift import CHANCE, MIN_RECORDS, compare, divergence, summarised
from .profile import FieldCounter, ProfileCounts, RecordProfiler

MOST_REPORTS = 10_000
MOST_BYTES = 32 * 2**20
"""Maximum number of devices of a deployment whose reports are kept, and of bytes that they take."""

LEAST_RECORDS = 500
"""Records that every caller may count for, however few the others have."""

_TIMES_MEDIAN = 4


@dataclass(frozen=True, slots=True)
class KeptReport:
    """The latest report of a device."""

    caller: str
    report: DeviceReport
    at: float
    """When it arrived, in seconds of the keeper's clock."""


@dataclass(frozen=True, slots=True)
class FleetFinding:
    """The comparison of what all devices reported."""

    devices: int = 0
    fields: tuple[FieldDrift, ...] = ()
    status: DriftStatus | None = None
    """None if there are too few records."""


class FleetReports:
    """The latest report of each device of one deployment, for one profile."""

    def __init__(self, digest: str, profiler: RecordProfiler) -> None:
        self.digest = digest
        self.profiler = profiler
        fields = (*profiler.inputs, *profiler.outputs)
        width = sum(each.bins for each in fields)
        self._most = max(1, min(MOST_REPORTS, MOST_BYTES // (4 * max(1, width))))
        self._kept: OrderedDict[tuple[str, str], KeptReport] = OrderedDict()
        self._rows: Counter[str] = Counter()

    def take(self, caller: str, report: DeviceReport, at: float) -> None:
        """Keep a report in place of the device's last one; an older one changes nothing.

        If there is no room, the oldest report of the caller with the most devices goes.
        """
        key = caller, report.device
        known = self._kept.get(key)
        if known is not None and report.sequence < known.report.sequence:
            return
        if known is None:
            if len(self._kept) >= self._most:
                most = max(self._rows.values())
                self._drop(next(it for it in self._kept if self._rows[it[0]] == most))
            self._rows[caller] += 1
        self._kept[key] = KeptReport(caller, report, at)
        self._kept.move_to_end(key)

    def present(self, since: float) -> tuple[KeptReport, ...]:
        """Return the reports that arrived after ``since``, and forget the others."""
        for key in [key for key, kept in self._kept.items() if kept.at <= since]:
            self._drop(key)
        return tuple(self._kept.values())

    def _drop(self, key: tuple[str, str]) -> None:
        del self._kept[key]
        self._rows[key[0]] -= 1
        if not self._rows[key[0]]:
            del self._rows[key[0]]


def judge(
    profiler: RecordProfiler, kept: Sequence[KeptReport], max_drift: float, now: datetime
) -> FleetFinding:
    """Compare the sum of reports with the training profile."""
    reporting = (it for it in kept if it.report.records or it.report.rejects)
    known = sorted(reporting, key=lambda it: it.caller)
    if not known:
        return FleetFinding(devices=len(kept))
    rows = np.stack([it.report.values for it in known])
    starts = [at for at, it in enumerate(known) if not at or known[at - 1].caller != it.caller]
    sizes = np.array([[it.report.records, it.report.rejects] for it in known], np.float64)
    sizes = np.add.reduceat(sizes, starts)
    weights = weights_of(sizes.sum(axis=1))
    callers = np.add.reduceat(rows, starts) * weights[:, None].astype(np.float32)
    weighed = float(sizes[:, 0] @ weights)
    # Records that count for less tell no more than they count for: nobody knows whose they are.
    counts = ProfileCounts(weighed, weighed, float(sizes[:, 1] @ weights))
    total = callers.sum(axis=0, dtype=np.float64)
    places = dict(_places(profiler))
    for (side, name), (part, _) in places.items():
        (counts.inputs if side == "input" else counts.outputs)[name] = total[part]
    found = []
    for each in compare(profiler, counts, max_drift):
        part, counter = places[each.side, each.name]
        drifted = each.drifted and _without_any(
            counter, callers[:, part], max_drift, CHANCE / len(places)
        )
        found.append(_with_verdict(each, drifted=drifted))
    fields = tuple(sorted(found, key=lambda d: (not d.drifted, -d.psi)))
    return FleetFinding(len(kept), fields, summarised(fields, counts, now))


def weights_of(records: Array) -> Array:
    """Return what one of each caller's records (C,), rejected or not, counts for; at most 1."""
    most = max(LEAST_RECORDS, _TIMES_MEDIAN * float(np.median(records)))
    return np.minimum(1.0, most / np.maximum(1.0, records))


def _with_verdict(each: FieldDrift, *, drifted: bool) -> FieldDrift:
    """Return a comparison with another verdict."""
    return each if drifted == each.drifted else each.model_copy(update={"drifted": drifted})


def _places(
    profiler: RecordProfiler,
) -> Iterator[tuple[tuple[str, str], tuple[slice, FieldCounter]]]:
    """Yield each field's bins in a report, by side and name."""
    at = 0
    for side, fields in (("input", profiler.inputs), ("output", profiler.outputs)):
        for each in fields:
            yield (side, each.name), (slice(at, at + each.bins), each)
            at += each.bins


def _without_any(counter: FieldCounter, callers: Array, max_drift: float, chance: float) -> bool:
    """Return whether a field has drifted without each single caller as well.

    ``callers`` are the weighted counts (C, bins). Only the callers that differ most matter: without
    any other, the rest differs more.
    """
    total = callers.sum(axis=0, dtype=np.float64)
    for at in _most_different(counter.expected, callers):
        rest = total - callers[at]
        if float(rest.sum()) < MIN_RECORDS:
            continue
        found = divergence(counter.expected, rest, ordered=False, chance=chance)
        if found.psi <= max_drift or found.psi <= found.by_chance:
            return False
    return True


_TRIED = 8
"""Callers that are left out in turn, those first whose counts differ most from the training."""


def _most_different(expected: Array, callers: Array) -> list[int]:
    p = expected / max(1.0, float(expected.sum()))
    sizes = callers.sum(axis=1, dtype=np.float64)
    distance = np.abs(callers - sizes[:, None] * p).sum(axis=1)
    found: list[int] = np.argsort(-distance)[:_TRIED].tolist()
    return found
