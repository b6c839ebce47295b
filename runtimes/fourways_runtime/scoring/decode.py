"""From Arrow columns to records that satisfy the data contract: decode, check, reject.

Owns how a raw column becomes the typed values of a field; the rules for them are in
:mod:`.checks`. Text is parsed without guessing: a shaped field's text is JSON. No I/O.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fourways_api import InputField

from . import exact_json, ragged
from .cells import Cells, is_list, is_text, leaf, texts_of
from .checks import MAX_KEY_BYTES, RecordChecker, Refused, note, violations
from .columns import Array, Keys, Records, Reject, Rows, Texts, text_ends
from .json_cells import is_json, json_values
from .values import (
    Faults,
    by_record,
    filled,
    json_scalars,
    misshapen,
    numpy_type,
    shown,
)


class Decoder(RecordChecker):
    """Converts raw Arrow columns as well."""

    def decode(self, batch: pa.RecordBatch, rows: Rows) -> tuple[Records, list[Reject]]:
        """Decode a batch of any Arrow types; ``rows`` (N,) are its positions in the source.

        An absent column counts as missing in every record.
        """
        absent = pa.nulls(batch.num_rows)
        names = set(batch.schema.names)
        columns = {}
        refused: Refused = {}
        found = batch.column(self._key.name) if self._key.name in names else absent
        keys, faults = _keys(self._key.type, found)
        note(refused, self._key.name, faults)
        for field in self._fields:
            found = batch.column(field.name) if field.name in names else absent
            values, faults = _column(field, found)
            note(refused, field.name, faults)
            note(refused, field.name, violations(field, values))
            columns[field.name] = values
        return self.split(keys, rows, columns, refused)


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
    values, faults = _shaped(field, found)
    return (values, faults) if field.is_free else filled(field, values, faults)


def _shaped(field: InputField, found: Cells) -> tuple[Array, Faults]:
    if is_json(found.type):
        return ragged.shaped(field, json_values(found))
    if is_text(found.type):
        return _from_json(field, found)
    if field.is_free:
        return _free(field, found)
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
            faults[int(rows[at])] = misshapen(int(was[was != size][0]), depth, field.shape)
        repeats = len(found) // len(rows) if len(rows) else 1
        found = pc.list_flatten(found.filter(pa.array(np.repeat(good, repeats))))
        rows = rows[good]
    elements, wrong = leaf(field.type, field.nullable, found)
    values[rows] = elements.reshape(len(rows), *field.shape)
    for at, reason in by_record(wrong, field.shape).items():
        faults[int(rows[at])] = reason
    return values, faults


def _free(field: InputField, found: Cells) -> tuple[Array, Faults]:
    """Decode lists whose sizes may differ; see :mod:`.ragged`."""
    one = len(field.shape) == 1 and is_list(found.type) and not is_list(found.type.value_type)
    if not one:
        return ragged.from_values(field, found.to_pylist())
    lengths = pc.list_value_length(found).fill_null(-1).to_numpy(zero_copy_only=False)
    some = found.filter(pa.array(lengths > 0))
    elements, wrong = leaf(field.type, field.nullable, pc.list_flatten(some))
    sizes = [(int(length),) if length > 0 else None for length in lengths]
    faults = {
        int(at): "missing" if lengths[at] < 0 else "holds no elements"
        for at in np.flatnonzero(lengths < 1)
    }
    return ragged.divided(field, elements, sizes, wrong, faults)


def _from_json(field: InputField, found: Cells) -> tuple[Array, Faults]:
    """Decode a shaped field whose cells are texts: each is a JSON list."""
    texts, _, faults = texts_of(found)
    parsed: list[Any] = []
    for at, text in enumerate(texts.to_pylist()):
        parsed.append(None)
        if at in faults or not text:
            continue
        try:
            parsed[at] = exact_json.loads(text)
        except ValueError:
            parsed[at] = None
        if not isinstance(parsed[at], list):
            faults[at] = f"{shown(text)} is not a JSON list of {field.type}"
    values, more = ragged.shaped(field, parsed)
    return values, more | faults
