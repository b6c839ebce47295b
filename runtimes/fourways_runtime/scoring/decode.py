"""From raw columns to records that satisfy the data contract: decode, check, reject.

Owns the rules by which records are accepted and the messages of rejects. Valid rows are processed
as whole columns; Python looks at single values only to describe what is wrong with them. No I/O.

The rules: null and NaN are missing; a missing value is rejected unless the field is nullable. An
infinity is rejected. So is a number the field's type cannot hold (too large, a fraction for an
integer type, an integer that a float would round). Text is parsed without guessing: a shaped
field's text is JSON. If a record has several faults, the first in the contract's order is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from fourways_api import Contract, InputField
from fourways_runtime.errors import SourceError

from .cells import (
    Cells,
    Faults,
    is_list,
    is_text,
    json_scalars,
    leaf,
    numpy_type,
    shown,
    texts_of,
)
from .columns import Array, Keys, Records, Reject, Rows, Texts, text_ends
from .json_cells import is_json, json_values
from .literals import said

MAX_KEY_BYTES = 1024
"""Maximum entity key: PostgreSQL's B-tree rejects entries above a third of an 8 KiB page."""

_FEW = 32
"""Maximum number of texts that are decoded one by one."""


class Decoder:
    """Converts raw columns to :class:`Records` and :class:`Reject` under one contract."""

    def __init__(self, contract: Contract) -> None:
        self._key = contract.entity_key
        self._fields = contract.inputs

    def decode(self, batch: pa.RecordBatch, rows: Rows) -> tuple[Records, list[Reject]]:
        """Decode a batch of any Arrow types; ``rows`` (N,) are its positions in the source.

        An absent column counts as missing in every record.
        """
        absent = pa.nulls(batch.num_rows)
        names = set(batch.schema.names)
        columns = {}
        refused: dict[int, tuple[str, str]] = {}
        found = batch.column(self._key.name) if self._key.name in names else absent
        keys, faults = _keys(self._key.type, found)
        _note(refused, self._key.name, faults)
        for field in self._fields:
            found = batch.column(field.name) if field.name in names else absent
            values, faults = _column(field, found)
            _note(refused, field.name, faults)
            _note(refused, field.name, violations(field, values))
            columns[field.name] = values
        return self._split(keys, rows, columns, refused)

    def check(
        self, keys: Keys, columns: Mapping[str, Array], rows: Rows
    ) -> tuple[Records, list[Reject]]:
        """Check columns that are numpy arrays already, each (N, *shape of the field).

        Raises:
            SourceError: an input is absent, or its shape differs from the contract's.

        """
        decoded = {}
        refused: dict[int, tuple[str, str]] = {}
        given = np.asarray(keys)
        if self._key.type != "int64" or given.dtype != np.int64:  # otherwise nothing can be wrong
            texts, faults = _as_arrow(self._key.type, given)
            keys, more = _keys(self._key.type, texts)
            _note(refused, self._key.name, faults | more)
        for field in self._fields:
            values, faults = _retyped(field, columns, len(rows))
            _note(refused, field.name, faults)
            _note(refused, field.name, violations(field, values))
            decoded[field.name] = values
        return self._split(keys, rows, decoded, refused)

    def _split(
        self,
        keys: Keys,
        rows: Rows,
        columns: Mapping[str, Array],
        refused: dict[int, tuple[str, str]],
    ) -> tuple[Records, list[Reject]]:
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
    return by_record(faults, field.shape)


def _known(flat: Array, field: InputField) -> Array:
    """Return a mask of the texts (M,) that are among the field's categories."""
    allowed = [*(field.categories or ()), *([""] if field.nullable else [])]
    if len(flat) <= _FEW:
        return np.array([text in allowed for text in flat.tolist()], bool)
    known = pc.is_in(pa.array(flat, pa.string()), value_set=pa.array(allowed, pa.string()))
    found: Array = known.to_numpy(zero_copy_only=False)
    return found


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
    if limits.min is not None and (below := flat < limits.min).any():
        for at in np.flatnonzero(below):
            faults[int(at)] = f"{shown(flat[at])} is below {shown(limits.min)}"
    if limits.max is not None and (above := flat > limits.max).any():
        for at in np.flatnonzero(above):
            faults[int(at)] = f"{shown(flat[at])} is above {shown(limits.max)}"
    return faults


def by_record(faults: Faults, shape: tuple[int, ...]) -> Faults:
    """Convert faults by element of (N, *shape), flattened, to the first fault of each record."""
    if not shape or not faults:
        return faults
    size = math.prod(shape)
    found: Faults = {}
    for at in sorted(faults):
        record, element = divmod(at, size)
        where = ", ".join(str(i) for i in np.unravel_index(element, shape))
        found.setdefault(record, f"element [{where}]: {faults[at]}")
    return found


def _note(refused: dict[int, tuple[str, str]], name: str, faults: Faults) -> None:
    for at, reason in faults.items():
        refused.setdefault(at, (name, reason))


def _listed(categories: tuple[str, ...]) -> str:
    listed = ", ".join(categories[:10])
    return listed if len(categories) <= 10 else f"{listed}, … ({len(categories)} in all)"


# ---------------------------------------------------------------- columns


def _keys(kind: str, found: Cells) -> tuple[Keys, Faults]:
    if kind != "string":
        return leaf(kind, False, found)
    more: Faults = {}
    if is_json(found.type):
        values, more = json_scalars(kind, True, json_values(found))
        found = pa.array(values, pa.string())
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if pa.types.is_null(found.type):
        found = found.cast(pa.string())
    texts, _, faults = texts_of(found)
    faults |= more
    # Missing texts are empty at this point.
    length: Array = np.asarray(pc.binary_length(texts))
    for at in np.flatnonzero(length == 0):
        faults.setdefault(int(at), "missing")
    for at in np.flatnonzero(length > MAX_KEY_BYTES):
        faults.setdefault(int(at), f"longer than {MAX_KEY_BYTES} bytes")
    if _holds_nul(texts):
        for at in np.flatnonzero(np.asarray(pc.match_substring(texts, "\0"))):
            faults.setdefault(int(at), "holds a NUL character")
    return Texts(texts), faults


def _holds_nul(texts: Cells) -> bool:
    """Return whether any byte of these texts is zero."""
    data = texts.buffers()[2]
    if data is None:
        return False
    ends = text_ends(texts)
    return not np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].all()


def _column(field: InputField, found: Cells) -> tuple[Array, Faults]:
    if not field.shape:
        return leaf(field.type, field.nullable, found)
    if is_json(found.type):
        return _from_values(field, json_values(found))
    if is_text(found.type):
        return _from_json(field, found)
    values = np.zeros((len(found), *field.shape), numpy_type(field.type))
    faults: Faults = {}
    rows: Rows = np.arange(len(found))
    flat = pa.types.is_null(found.type) or not is_list(found.type.value_type)
    for depth, size in enumerate((math.prod(field.shape),) if flat else field.shape):
        if pa.types.is_null(found.type):
            faults |= dict.fromkeys(rows.tolist(), "missing")
            return values, faults
        lengths = pc.list_value_length(found).fill_null(-1).to_numpy(zero_copy_only=False)
        good = (lengths == size).reshape(len(rows), -1).all(axis=1) if len(rows) else lengths == 0
        for at in np.flatnonzero(~good).tolist():
            was = lengths.reshape(len(rows), -1)[at]
            faults[int(rows[at])] = _misshapen(int(was[was != size][0]), depth, field.shape)
        repeats = len(found) // len(rows) if len(rows) else 1
        found = pc.list_flatten(found.filter(pa.array(np.repeat(good, repeats))))
        rows = rows[good]
    elements, wrong = leaf(field.type, field.nullable, found)
    values[rows] = elements.reshape(len(rows), *field.shape)
    for at, reason in by_record(wrong, field.shape).items():
        faults[int(rows[at])] = reason
    return values, faults


def _misshapen(length: int, depth: int, shape: tuple[int, ...]) -> str:
    if length < 0:
        return "missing"
    return f"{length} elements at depth {depth + 1}, shape {list(shape)} was expected"


def _from_json(field: InputField, found: Cells) -> tuple[Array, Faults]:
    """Decode a shaped field whose cells are texts: each is a JSON list."""
    texts, _, faults = texts_of(found)
    parsed: list[Any] = []
    for at, text in enumerate(texts.to_pylist()):
        parsed.append(None)
        if at in faults or not text:
            continue
        try:
            parsed[at] = orjson.loads(text)
        except ValueError:
            parsed[at] = None
        if not isinstance(parsed[at], list):
            faults[at] = f"{shown(text)} is not a JSON list of {field.type}"
    values, more = _from_values(field, parsed)
    return values, more | faults


def _from_values(field: InputField, parsed: list[Any]) -> tuple[Array, Faults]:
    """Decode a shaped field from JSON values, one per record; None is missing."""
    values = np.zeros((len(parsed), *field.shape), numpy_type(field.type))
    faults: Faults = {}
    for at, value in enumerate(parsed):
        scalars: list[Any] = []
        fault = _laid_flat(field, value, scalars)
        if fault is None:
            elements, wrong = json_scalars(field.type, field.nullable, scalars)
            values[at] = elements.reshape(field.shape)
            fault = by_record(wrong, field.shape).get(0)
        if fault is not None:
            faults[at] = fault
    return values, faults


def shape_fault(field: InputField, value: Any) -> str | None:
    """Say why a JSON value does not have the shape of a field; None if it has."""
    return _laid_flat(field, value, [])


def _laid_flat(field: InputField, value: Any, into: list[Any]) -> str | None:
    """Collect the elements of a list, nested as the field's shape or flat; return the fault."""
    if value is None:
        return "missing"
    if not isinstance(value, list):
        return f"{said(value)} is not a list of {field.type} of shape {list(field.shape)}"
    nested = any(isinstance(element, list) for element in value)
    sizes = field.shape if nested else (math.prod(field.shape),)
    level = [value]
    for depth, size in enumerate(sizes):
        for each in level:
            if not isinstance(each, list):
                return (
                    _misshapen(-1, depth, field.shape)
                    if each is None
                    else (f"{said(each)} is not a list of {field.type}")
                )
            if len(each) != size:
                return _misshapen(len(each), depth, field.shape)
        level = [element for each in level for element in each]
    into += level
    return None


def _retyped(field: InputField, columns: Mapping[str, Array], records: int) -> tuple[Array, Faults]:
    if field.name not in columns:
        raise SourceError(f"input {field.name} is missing; found {', '.join(columns) or 'none'}")
    values = columns[field.name]
    if values.shape != (records, *field.shape):
        raise SourceError(
            f"input {field.name} has shape {list(values.shape)}, "
            f"{[records, *field.shape]} was expected"
        )
    if values.dtype == numpy_type(field.type) and field.type != "string":
        plain = field.type != "bytes" or set(map(type, values.reshape(-1))) <= {bytes}
        if plain:
            return values, {}
    few = _few_texts(field, values.reshape(-1)) if field.type == "string" else None
    if few is not None:
        return few[0].reshape(values.shape), by_record(few[1], field.shape)
    found, faults = _as_arrow(field.type, values.reshape(-1))
    elements, more = leaf(field.type, field.nullable, found)
    return elements.reshape(values.shape), by_record(more | faults, field.shape)


def _few_texts(field: InputField, values: Array) -> tuple[Array, Faults] | None:
    """Decode a few texts (M,) as they are; None if there are many, or if any is not a plain text.

    Arrow would return the same, but would import pandas if it is installed: 60 MB and half a second
    that a device which scores one record at a time cannot spare.
    """
    if len(values) > _FEW:
        return None
    faults: Faults = {}
    kept = np.empty(len(values), object)
    for at, text in enumerate(values.tolist()):
        if text is None:
            kept[at] = ""
            if not field.nullable:
                faults[at] = "missing"
        elif type(text) is str and _is_unicode(text):
            kept[at] = text
        else:
            return None
    return kept, faults


def _is_unicode(text: str) -> bool:
    """Return whether a text can be encoded: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_arrow(kind: str, values: Array) -> tuple[Cells, Faults]:
    if values.dtype.kind in "biuf":
        return pa.array(values), {}
    try:
        if kind == "bytes" and set(map(type, values)) <= {bytes, type(None)}:
            return pa.array(values, pa.binary()), {}
        return pa.array(values, pa.string() if kind == "string" else None, from_pandas=True), {}
    except (pa.ArrowException, UnicodeEncodeError):
        faults: Faults = {}
        kept: list[str | None] = []
        for at, value in enumerate(values.tolist()):
            try:
                kept.append(pa.array([value], pa.string(), from_pandas=True)[0].as_py())
            except (pa.ArrowException, UnicodeEncodeError):
                faults[at] = (
                    f"{shown(str(value))} is not text" if kind == "string" else "not a number"
                )
                kept.append(None)
        return pa.array(kept, pa.string()), faults
