"""Counts how the values of inputs and outputs are distributed over the bins of a training profile.

Owns the bins and the counting; what a difference means is the matter of :mod:`.drift`. Counting
works on whole columns. The bounds of bins lie between values that occur in training, so a value
that another type rounds (float32 for float64) stays in its bin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from fourways_api import Contract, InputField, OutputField
from fourways_api.training_profile import (
    MAX_PROFILE_LABELS,
    MAX_PROFILED,
    ProfiledField,
    TrainingProfile,
)

from .columns import Array, Columns, Scored

_FEW = 16
"""Up to so many distinct numbers each have a bin of their own."""

SAMPLE_LEAST = 512
"""Records of a batch that are all looked at."""

_DECILES = np.arange(0.1, 0.95, 0.1)
_LEAST_SHARE = 0.002
"""Share of the records from which on a text has a bin of its own."""


class FieldCounter:
    """Counts the values of one input or output by bin."""

    def __init__(self, profiled: ProfiledField) -> None:
        self.name = profiled.name
        self.expected = np.array(profiled.counts, np.float64)
        self.ordered = profiled.edges is not None
        self._edges = np.array(profiled.edges or (), np.float64)
        self._labels = {label: at for at, label in enumerate(profiled.labels or ())}
        self.bins = profiled.bins

    def count(self, values: Array) -> Array:
        """Return the number of values (N,) in each bin, as float64 (bins,); the last: missing."""
        if not self.ordered:
            other = len(self._labels)
            found = [
                other + 1 if text in ("", None) else self._labels.get(text, other)
                for text in values.tolist()
            ]
            return np.bincount(found, minlength=self.bins).astype(np.float64)
        numbers = np.asarray(values, np.float64)
        places = np.searchsorted(self._edges, numbers)
        places[np.isnan(numbers)] = self.bins - 1
        return np.bincount(places, minlength=self.bins).astype(np.float64)


@dataclass(slots=True)
class ProfileCounts:
    """Counts of some records: by side, name and bin.

    A record may stand for several. ``records`` is the sum of the weights, ``squares`` the sum of
    their squares, so :attr:`effective` is the number of equally weighted records that would tell as
    much.
    """

    records: float = 0.0
    squares: float = 0.0
    rejects: float = 0.0
    inputs: dict[str, Array] = field(default_factory=dict)
    outputs: dict[str, Array] = field(default_factory=dict)

    @property
    def effective(self) -> float:
        """Number of equally weighted records that tell as much."""
        return self.records**2 / self.squares if self.squares else 0.0

    def add(self, other: ProfileCounts) -> None:
        """Add other counts under the same profile."""
        self.records += other.records
        self.squares += other.squares
        self.rejects += other.rejects
        for mine, theirs in ((self.inputs, other.inputs), (self.outputs, other.outputs)):
            for name, counts in theirs.items():
                known = mine.get(name)
                mine[name] = counts.copy() if known is None else known + counts

    def to_json(self) -> str:
        """Return them as JSON text."""
        found = {
            "records": self.records,
            "squares": self.squares,
            "rejects": self.rejects,
            "inputs": {name: counts.tolist() for name, counts in self.inputs.items()},
            "outputs": {name: counts.tolist() for name, counts in self.outputs.items()},
        }
        return orjson.dumps(found).decode()

    @classmethod
    def from_json(cls, text: str) -> ProfileCounts:
        """Read what :meth:`to_json` wrote."""
        found: dict[str, Any] = orjson.loads(text)
        sides = ({n: np.array(c) for n, c in found[side].items()} for side in ("inputs", "outputs"))
        return cls(found["records"], found["squares"], found["rejects"], *sides)


class RecordProfiler:
    """Counts records under a training profile. Thread-safe."""

    def __init__(self, profile: TrainingProfile) -> None:
        self.rows = profile.rows
        self.inputs = [FieldCounter(each) for each in profile.inputs]
        self.outputs = [FieldCounter(each) for each in profile.outputs]

    def count(
        self, inputs: Columns, outputs: Columns, *, weight: float = 1.0, rejects: int = 0
    ) -> ProfileCounts:
        """Count columns (N,), each of whose records stands for ``weight`` records.

        ``rejects`` are records that are in neither side or only among the inputs.
        """
        found = ProfileCounts(rejects=rejects * weight)
        for counters, columns, counts in (
            (self.inputs, inputs, found.inputs),
            (self.outputs, outputs, found.outputs),
        ):
            for each in counters:
                values = columns.get(each.name)
                if values is not None and len(values):
                    counts[each.name] = each.count(values) * weight
        records = max((len(values) for values in inputs.values()), default=0)
        found.records, found.squares = records * weight, records * weight**2
        return found

    def sampled(
        self, scored: Scored, rejects: int, *, weighed: bool, most: int | None = None
    ) -> ProfileCounts:
        """Count a sample of scored records, spread evenly over them.

        ``weighed``: each stands for as many as it was chosen from. ``most`` is the size of the
        sample, by default :data:`SAMPLE_LEAST` and a part of the rest.
        """
        rows = max(map(len, scored.inputs.values()), default=0)
        limit = SAMPLE_LEAST + rows // 256 if most is None else most
        which = sample_of(rows, limit)
        outputs = scored.predictions.columns
        weight = rows / len(which) if which is not None and weighed else 1.0
        found = self.count(
            taken(scored.inputs, which),
            taken(outputs, sample_of(len(scored.predictions), limit)),
            weight=weight,
        )
        found.rejects = rejects if weighed or which is None else rejects * len(which) / rows
        return found


def sample_of(rows: int, most: int) -> Array | None:
    """Return which of ``rows`` records to look at, spread evenly; None: all of them."""
    return None if rows <= most else np.linspace(0, rows - 1, most).astype(np.int64)


def taken(columns: Columns, which: Array | None) -> Columns:
    """Return some records of columns."""
    return columns if which is None else {name: each[which] for name, each in columns.items()}


# ---------------------------------------------------------------- making a profile


def make_profile(contract: Contract, inputs: Columns, outputs: Columns) -> TrainingProfile:
    """Return the profile of records of the contract: columns (N,) of inputs and of outputs.

    Left out are values with a shape, bytes, and fields beyond the first ``MAX_PROFILED``.
    """
    rows = max((len(values) for values in inputs.values()), default=0)
    return TrainingProfile(
        rows=rows,
        inputs=tuple(_profiled(contract.flat_inputs, inputs)),
        outputs=tuple(_profiled(contract.outputs, outputs)),
    )


def _profiled(
    fields: Sequence[InputField] | Sequence[OutputField], columns: Mapping[str, Array]
) -> Iterable[ProfiledField]:
    single = [each for each in fields if not each.shape and each.type != "bytes"]
    for each in single[:MAX_PROFILED]:
        values = columns[each.name]
        if not len(values):
            continue
        if each.type == "string":
            yield _of_texts(each.name, values)
        else:
            yield _of_numbers(each.name, np.asarray(values, np.float64))


def _of_texts(name: str, values: Array) -> ProfiledField:
    found, counts = np.unique(values.astype(str), return_counts=True)
    ordered = np.argsort(-counts, kind="stable")
    least = _LEAST_SHARE * len(values)
    labels = [
        str(found[at])
        for at in ordered.tolist()
        if found[at] and counts[at] >= least and len(found[at]) <= 256
    ]
    return _with_counts(
        ProfiledField(
            name=name,
            labels=tuple(labels[:MAX_PROFILE_LABELS]),
            counts=(0,) * (len(labels[:MAX_PROFILE_LABELS]) + 2),
        ),
        values,
    )


def _of_numbers(name: str, values: Array) -> ProfiledField:
    distinct = np.unique(values[~np.isnan(values)])
    edges = _between_few(distinct) if len(distinct) <= _FEW else _quantiles(values, distinct)
    bare = ProfiledField(name=name, edges=tuple(edges.tolist()), counts=(0,) * (len(edges) + 2))
    return _with_counts(bare, values)


def _between_few(distinct: Array) -> Array:
    """Return edges that give each of a few values a bin, and what lies outside of them two more."""
    if not len(distinct):
        return np.zeros(1)
    gaps = np.diff(distinct)
    margin = float(gaps.min()) / 2 if len(gaps) else max(1e-3, abs(float(distinct[0])) * 1e-3)
    between = distinct[:-1] + gaps / 2
    return np.unique([distinct[0] - margin, *between, distinct[-1] + margin])


def _quantiles(values: Array, distinct: Array) -> Array:
    """Return edges at the deciles, each halfway to the next value that occurs."""
    deciles = np.quantile(values[~np.isnan(values)], _DECILES, method="inverted_cdf")
    at = np.unique(np.searchsorted(distinct, deciles))
    at = at[at < len(distinct) - 1]
    return np.unique((distinct[at] + distinct[at + 1]) / 2)


def _with_counts(bare: ProfiledField, values: Array) -> ProfiledField:
    counts = FieldCounter(bare).count(values)
    return bare.model_copy(update={"counts": tuple(counts.astype(int).tolist())})
