"""64-bit hashes of entity keys and of rows, whole columns at a time.

Not cryptographic: keys with equal hashes are compared themselves. Row hashes are kept in stores and
compared by later runs, so the formulas must not change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .cells import Cells, is_list, is_text
from .columns import Array, text_ends
from .json_cells import is_json

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_NULL = np.uint64(0xD1B54A32D192ED03)


def key_hashes(keys: Any) -> Array:
    """Hash an Arrow array of int64 or of text, without nulls; (N,) of int64."""
    with np.errstate(over="ignore"):
        if pa.types.is_integer(keys.type):
            return _finished(keys.to_numpy(zero_copy_only=False).view(np.uint64) + _ODD).view(
                np.int64
            )
        return text_hashes(keys.cast(pa.string())).view(np.int64)


def text_hashes(texts: Any) -> Array:
    """Fold each text's bytes, eight at a time; (N,) of uint64, for an array of text or bytes."""
    data = texts.buffers()[2]
    ends = text_ends(texts).astype(np.int64)
    first = int(ends[0]) if len(ends) else 0
    raw = np.frombuffer(data, np.uint8)[first : ends[-1]] if data else np.empty(0, np.uint8)
    # The eight bytes from every position; the last text ends before the padding.
    padded = np.concatenate([raw, np.zeros(8, np.uint8)])
    words = np.ndarray((len(padded) - 7,), "<u8", padded, 0, (1,))
    at, left = ends[:-1] - first, np.diff(ends)
    found = _finished(left.astype(np.uint64) + _ODD)
    length = int(left[0]) if len(left) else 0
    if length and (left == length).all():
        return _of_one_length(words, length, found)
    rows = np.arange(len(left))
    while True:
        more = left > 0
        if not more.all():
            rows, at, left = rows[more], at[more], left[more]
        if not len(rows):
            return found
        word = words[at]
        short = left < 8
        if short.any():
            used = (np.uint64(1) << (8 * left[short]).astype(np.uint64)) - np.uint64(1)
            word[short] &= used
        found[rows] = _finished(found[rows] * _ODD + word)
        at, left = at + 8, left - 8


def _of_one_length(words: Array, length: int, found: Array) -> Array:
    """Fold texts of equal length, as many keys are: their words need not be gathered."""
    for begin in range(0, length, 8):
        word = words[begin::length][: len(found)]
        if length - begin < 8:
            word = word & np.uint64((1 << 8 * (length - begin)) - 1)
        found *= _ODD
        found += word
        found = _finished(found)
    return found


def _finished(values: Array) -> Array:
    values = mixed(values)
    values *= _ODD
    values ^= values >> np.uint64(32)
    return values


def mixed(values: Array) -> Array:
    """Mix the bits of hashes (N,) of uint64, reversibly."""
    values = values ^ (values >> np.uint64(31))
    values *= _MIX
    values ^= values >> np.uint64(29)
    return values


# ---------------------------------------------------------------- rows


def row_hashes(batch: pa.RecordBatch, columns: tuple[str, ...]) -> Array:
    """Hash each row's values in ``columns`` to 64 bits, (N,) of int64.

    The same values give the same hash in every run, whatever the width of their type. Two different
    rows share a hash with a probability of about 2**-64.
    """
    found = np.zeros(batch.num_rows, np.uint64)
    high = np.empty_like(found)
    with np.errstate(over="ignore"):
        for name in columns:
            # Each step is reversible, so rows that differ in one column never share a hash. In
            # place, because a wide table takes one iteration per column.
            found += _column_hashes(batch.column(name))
            found *= _ODD
            np.right_shift(found, np.uint64(32), out=high)
            found ^= high
        return mixed(found).view(np.int64)


def _column_hashes(column: Cells) -> Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_json(column.type):
        column = column.storage
    if pa.types.is_null(column.type):
        return np.full(len(column), _NULL)
    if is_list(column.type):
        elements = pc.list_flatten(column)
        lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        hashes = _folded(_column_hashes(elements), lengths.astype(np.int64))
    elif is_text(column.type):
        hashes = text_hashes(column.cast(pa.binary()))
    else:
        hashes = _bits(column)
    if column.null_count:
        missing = column.is_null().to_numpy(zero_copy_only=False)
        hashes = np.where(missing, _NULL, hashes)
    return hashes


def _bits(column: Cells) -> Array:
    """Return 64 bits per scalar, independent of the width of an integer or float type."""
    types = pa.types
    if types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    elif types.is_decimal(column.type):
        return _column_hashes(column.cast(pa.string()))
    elif types.is_date32(column.type):
        column = column.cast(pa.int32())  # Arrow has no cast to 64 bits.
    elif not (types.is_integer(column.type) or types.is_floating(column.type)):
        column = column.cast(pa.int64(), safe=False)
    if types.is_float16(column.type):
        column = column.cast(pa.float32())
    column = column.fill_null(0) if column.null_count else column
    values: Array = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        return values.astype(np.float64).view(np.uint64)
    if values.dtype.kind == "u":
        return values.astype(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _folded(elements: Array, lengths: Array) -> Array:
    """Fold the hashes of consecutive elements into one per list; ``lengths`` delimit the lists."""
    starts = np.cumsum(lengths) - lengths
    place = (np.arange(len(elements)) - np.repeat(starts, lengths)).astype(np.uint64)
    spread = mixed(elements * _ODD + mixed(place * _MIX + _ODD))
    folded = np.zeros(len(lengths), np.uint64)
    filled = lengths > 0
    if filled.any():
        folded[filled] = np.add.reduceat(spread, starts[filled])
    return folded + lengths.astype(np.uint64)
