"""Fields with a dimension of any size (``shape: [-1]``): texts as tokens, series.

Owns their form: a column of them is an array (N, *sizes) if all records have the same sizes, else
an array (N,) of objects, each an array with the sizes of its record. Records of the same sizes are
scored together. No I/O, no library but numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fourways_api import InputField

from .columns import Array, Columns
from .literals import said
from .values import Faults, json_scalars, json_shaped, numpy_type

Sizes = tuple[int, ...]


def fits(sizes: Sequence[int], shape: Sequence[int]) -> bool:
    """Return whether the sizes of a record are those of a field, where -1 is any but 0."""
    return len(sizes) == len(shape) and all(
        size == wanted or (wanted == -1 and size > 0)
        for size, wanted in zip(sizes, shape, strict=True)
    )


def joined(parts: Sequence[Array]) -> Array:
    """Join columns of such a field to one column."""
    if all(part.ndim > 1 for part in parts) and len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    return column([record for part in parts for record in part])


def column(records: Sequence[Array] | Array) -> Array:
    """Return the column of these records."""
    if len({record.shape for record in records}) == 1:
        return np.stack(list(records))
    made = np.empty(len(records), object)
    for at, record in enumerate(records):
        made[at] = record
    return made


def alike(fields: Sequence[InputField], columns: Columns) -> list[Array] | None:
    """Return the indices of records with the same sizes, group by group; None if all have them."""
    mixed = [columns[f.name] for f in fields if f.is_free and columns[f.name].ndim == 1]
    if not mixed:
        return None
    groups: dict[tuple[Sizes, ...], list[int]] = {}
    for at in range(len(mixed[0])):
        groups.setdefault(tuple(values[at].shape for values in mixed), []).append(at)
    return [np.array(group) for group in groups.values()]


def shaped(field: InputField, values: Sequence[Any]) -> tuple[Array, Faults]:
    """Decode JSON values (N,) of a field with a shape of either kind."""
    return (from_values if field.is_free else json_shaped)(field, values)


def from_values(field: InputField, values: Sequence[Any]) -> tuple[Array, Faults]:
    """Decode JSON values (N,), nested as the field's shape; None is missing."""
    faults: Faults = {}
    scalars: list[Any] = []
    sizes: list[Sizes | None] = []
    for at, value in enumerate(values):
        flat: list[Any] = []
        found, fault = _laid_flat(field, value, flat)
        sizes.append(found)
        if fault is not None:
            faults[at] = fault
        else:
            scalars += flat
    elements, wrong = json_scalars(field.type, field.nullable, scalars)
    return divided(field, elements, sizes, wrong, faults)


def _laid_flat(field: InputField, value: Any, into: list[Any]) -> tuple[Sizes | None, str | None]:
    """Collect the elements of nested lists; return their sizes, or the fault."""
    if value is None:
        return None, "missing"
    level, sizes = [value], []
    for _ in field.shape:
        if not all(isinstance(each, list) for each in level):
            wrong = next(each for each in level if not isinstance(each, list))
            return None, f"{said(wrong)} is not a list of {field.type} of shape {list(field.shape)}"
        lengths = {len(each) for each in level}
        if len(lengths) > 1:
            return None, f"its lists have {min(lengths)} to {max(lengths)} elements; pad them"
        sizes.append(lengths.pop())
        level = [element for each in level for element in each]
    if not fits(sizes, field.shape):
        return None, f"has the shape {sizes}, {list(field.shape)} was expected (-1: any but 0)"
    into += level
    return tuple(sizes), None


def divided(
    field: InputField,
    elements: Array,
    sizes: Sequence[Sizes | None],
    wrong: Faults,
    faults: Faults,
) -> tuple[Array, Faults]:
    """Cut elements (M,) into records of these sizes; a record with a fault has none.

    ``wrong`` has faults by element, ``faults`` by record; returns the column and all by record.
    """
    blank = np.zeros((1,) * len(field.shape), numpy_type(field.type))
    ends = np.cumsum([math.prod(each) if each is not None else 0 for each in sizes])
    records, start = [], 0
    for each, end in zip(sizes, ends.tolist(), strict=True):
        records.append(blank if each is None else elements[start:end].reshape(each))
        start = end
    for at in sorted(wrong):
        record = int(np.searchsorted(ends, at, side="right"))
        begin = int(ends[record - 1]) if record else 0
        where = np.unravel_index(at - begin, sizes[record] or ())
        faults.setdefault(record, f"element [{', '.join(map(str, where))}]: {wrong[at]}")
    return column(records), faults
