"""The rules of the data contract for typed values: ranges, categories, missing values, keys.

Owns which records are accepted and the messages of rejects. Valid rows are processed as whole
columns; Python looks at single values only to describe what is wrong with them. No library but
numpy; :mod:`.decode` reads Arrow columns under the same rules.

The rules: null and NaN are missing; a missing value is rejected unless the field is nullable. An
infinity is rejected. So is a number the field's type cannot hold (too large, a fraction for an
integer type, an integer that a float would round). If a record has several faults, the first in the
contract's order is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fourways_api import Contract, InputField
from fourways_runtime.errors import SourceError

from . import ragged
from .columns import Array, Keys, Records, Reject, Rows
from .values import Faults, by_record, json_scalars, numpy_type, shown, typed

MAX_KEY_BYTES = 1024
"""Maximum entity key: PostgreSQL's B-tree rejects entries above a third of an 8 KiB page."""

Refused = dict[int, tuple[str, str]]
"""The first fault of each bad record: the field and the reason."""


class RecordChecker:
    """Converts columns to :class:`Records` and :class:`Reject` under one contract."""

    def __init__(self, contract: Contract) -> None:
        self._key = contract.entity_key
        self._fields = contract.flat_inputs

    def check(
        self, keys: Keys, columns: Mapping[str, Array], rows: Rows
    ) -> tuple[Records, list[Reject]]:
        """Check columns that are numpy arrays already, each (N, *shape of the field).

        Raises:
            SourceError: an input is absent, or its shape differs from the contract's.

        """
        decoded = {}
        refused: Refused = {}
        keys, faults = _keys(self._key.type, np.asarray(keys))
        note(refused, self._key.name, faults)
        for field in self._fields:
            values, faults = _typed(field, columns, len(rows))
            note(refused, field.name, faults)
            note(refused, field.name, violations(field, values))
            decoded[field.name] = values
        return self.split(keys, rows, decoded, refused)

    def check_json(
        self, keys: Keys, columns: Mapping[str, Sequence[Any]], rows: Rows
    ) -> tuple[Records, list[Reject]]:
        """Check columns (N,) of JSON values: lists for a shaped field; None is missing."""
        decoded = {}
        refused: Refused = {}
        for field in self._fields:
            given = columns[field.name]
            if field.shape:
                values, faults = ragged.shaped(field, given)
            else:
                values, faults = json_scalars(field.type, field.nullable, given)
            note(refused, field.name, faults)
            note(refused, field.name, violations(field, values))
            decoded[field.name] = values
        return self.split(keys, rows, decoded, refused)

    def split(
        self,
        keys: Keys,
        rows: Rows,
        columns: Mapping[str, Array],
        refused: Refused,
    ) -> tuple[Records, list[Reject]]:
        """Separate the good records from the refused ones."""
        if not refused:
            return Records(keys, rows, columns), []
        rejects = [
            Reject(
                int(rows[at]),
                None if name == self._key.name else str(keys[at]),
                name,
                refused[at][1],
            )
            for at in sorted(refused)
            for name in (refused[at][0],)
        ]
        good = np.ones(len(keys), dtype=bool)
        good[list(refused)] = False
        kept = {name: values[good] for name, values in columns.items()}
        return Records(keys[good], rows[good], kept), rejects


def violations(field: InputField, values: Array) -> Faults:
    """Check typed values (N, *shape) against the field's rules; return faults by record."""
    if field.is_free and values.ndim == 1:
        each = (violations(field, record[np.newaxis]).get(0) for record in values)
        return {at: fault for at, fault in enumerate(each) if fault is not None}
    flat = values.reshape(-1)
    faults: Faults = {}
    if flat.dtype.kind == "f":
        if field.categories is None and within(flat, field.range):
            return faults
        finite = np.isfinite(flat)
        if not finite.all():
            for at in np.flatnonzero(~finite):
                if math.isinf(flat[at]):
                    faults[int(at)] = f"{shown(flat[at])} is not finite"
                elif not field.nullable:
                    faults[int(at)] = "missing"
    faults |= out_of_range(flat, field.range)
    if field.categories is not None:
        for at in np.flatnonzero(~_known(flat, field)):
            faults[int(at)] = f"{shown(flat[at])} is not one of {_listed(field.categories)}"
    return by_record(faults, values.shape[1:])


def _known(flat: Array, field: InputField) -> Array:
    """Return a mask of the texts (M,) that are among the field's categories."""
    allowed = {*(field.categories or ()), *([""] if field.nullable else [])}
    return np.fromiter(map(allowed.__contains__, flat.tolist()), bool, len(flat))


def within(flat: Array, limits: Any) -> bool:
    """Return whether all floats of ``flat`` (M,) are finite and in ``limits``, in one check."""
    if not len(flat):
        return True
    low = -math.inf if limits is None or limits.min is None else limits.min
    high = math.inf if limits is None or limits.max is None else limits.max
    # NaN makes both NaN, and every comparison with NaN is false.
    lowest, highest = np.minimum.reduce(flat), np.maximum.reduce(flat)
    good = low <= lowest and highest <= high and math.isfinite(lowest)
    return bool(good and math.isfinite(highest))


def out_of_range(flat: Array, limits: Any) -> Faults:
    """Return a fault for each number of ``flat`` (M,) outside the closed ``limits``."""
    faults: Faults = {}
    if limits is None:
        return faults
    if flat.dtype.kind in "iu":
        return _whole_out_of_range(flat, limits)
    if limits.min is not None and (below := flat < limits.min).any():
        for at in np.flatnonzero(below):
            faults[int(at)] = f"{shown(flat[at])} is below {shown(limits.min)}"
    if limits.max is not None and (above := flat > limits.max).any():
        for at in np.flatnonzero(above):
            faults[int(at)] = f"{shown(flat[at])} is above {shown(limits.max)}"
    return faults


def _whole_out_of_range(flat: Array, limits: Any) -> Faults:
    """Return :func:`out_of_range` of integers, compared exactly: not every one is a float."""
    held = np.iinfo(flat.dtype)
    faults: Faults = {}
    if limits.min is not None and (least := math.ceil(limits.min)) > held.min:
        below = np.ones(len(flat), bool) if least > held.max else flat < flat.dtype.type(least)
        for at in np.flatnonzero(below):
            faults[int(at)] = f"{shown(flat[at])} is below {shown(limits.min)}"
    if limits.max is not None and (most := math.floor(limits.max)) < held.max:
        above = np.ones(len(flat), bool) if most < held.min else flat > flat.dtype.type(most)
        for at in np.flatnonzero(above):
            faults[int(at)] = f"{shown(flat[at])} is above {shown(limits.max)}"
    return faults


def note(refused: Refused, name: str, faults: Faults) -> None:
    """Add a field's faults by record, unless the record has one already."""
    for at, reason in faults.items():
        refused.setdefault(at, (name, reason))


def _listed(categories: tuple[str, ...]) -> str:
    listed = ", ".join(categories[:10])
    return listed if len(categories) <= 10 else f"{listed}, … ({len(categories)} in all)"


def _keys(kind: str, given: Array) -> tuple[Keys, Faults]:
    keys, faults = typed(kind, kind == "string", given)
    return keys, (faults | text_key_faults(keys.tolist()) if kind == "string" else faults)


def text_key_faults(keys: Sequence[str]) -> Faults:
    """Return a fault for each text that cannot be an entity key; an empty one is missing."""
    faults: Faults = {}
    for at, key in enumerate(keys):
        if not key:
            faults[at] = "missing"
        elif len(key) * 4 > MAX_KEY_BYTES and len(key.encode()) > MAX_KEY_BYTES:
            faults[at] = f"longer than {MAX_KEY_BYTES} bytes"
        elif "\0" in key:
            faults[at] = "holds a NUL character"
    return faults


def _typed(field: InputField, columns: Mapping[str, Array], records: int) -> tuple[Array, Faults]:
    if field.name not in columns:
        raise SourceError(f"input {field.name} is missing; found {', '.join(columns) or 'none'}")
    values = columns[field.name]
    if field.is_free and values.ndim == 1 and len(values) == records:
        # Records of several sizes.
        each = [_typed(field, {field.name: record[np.newaxis]}, 1) for record in values]
        wrong = {at: faults[0] for at, (_, faults) in enumerate(each) if faults}
        return ragged.column([record[0] for record, _ in each]), wrong
    if len(values) != records or not ragged.fits(values.shape[1:], field.shape):
        raise SourceError(
            f"input {field.name} has shape {list(values.shape)}, "
            f"{[records, *field.shape]} was expected"
        )
    if values.dtype == numpy_type(field.type) and field.type not in ("string", "bytes"):
        return values, {}
    elements, faults = typed(field.type, field.nullable, values.reshape(-1))
    return elements.reshape(values.shape), by_record(faults, values.shape[1:])
