"""64-bit hashes of entity keys, whole columns at a time.

Not a defence against anybody: keys whose hashes agree are compared themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from fourways_runtime.scoring.columns import Array, text_ends

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


def key_hashes(keys: Any) -> Array:
    """Hash an Arrow array of int64 or of text, without nulls; (N,) of int64."""
    with np.errstate(over="ignore"):
        if pa.types.is_integer(keys.type):
            return _mixed(keys.to_numpy(zero_copy_only=False).view(np.uint64) + _ODD).view(np.int64)
        return text_hashes(keys.cast(pa.string())).view(np.int64)


def text_hashes(texts: Any) -> Array:
    """Fold each text's bytes, eight at a time; (N,) of uint64, for an array of text or bytes."""
    data = texts.buffers()[2]
    ends = text_ends(texts).astype(np.int64)
    first = int(ends[0]) if len(ends) else 0
    raw = np.frombuffer(data, np.uint8)[first : ends[-1]] if data else np.empty(0, np.uint8)
    # Every eight bytes there are, wherever they begin; the last text ends before the padding.
    padded = np.concatenate([raw, np.zeros(8, np.uint8)])
    words = np.ndarray((len(padded) - 7,), "<u8", padded, 0, (1,))
    at, left = ends[:-1] - first, np.diff(ends)
    found = _mixed(left.astype(np.uint64) + _ODD)
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
        found[rows] = _mixed(found[rows] * _ODD + word)
        at, left = at + 8, left - 8


def _of_one_length(words: Array, length: int, found: Array) -> Array:
    """Fold texts that are all as long, as many keys are: their words need not be gathered."""
    for begin in range(0, length, 8):
        word = words[begin::length][: len(found)]
        if length - begin < 8:
            word = word & np.uint64((1 << 8 * (length - begin)) - 1)
        found *= _ODD
        found += word
        found = _mixed(found)
    return found


def _mixed(values: Array) -> Array:
    values = values ^ (values >> np.uint64(31))
    values *= _MIX
    values ^= values >> np.uint64(29)
    values *= _ODD
    values ^= values >> np.uint64(32)
    return values
