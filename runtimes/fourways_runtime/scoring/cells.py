"""Converts a source's cells to the typed values of the data contract.

Owns which Arrow types are accepted for which contract types, how text becomes a number, and what a
type cannot hold. Works on whole columns of scalars; a single cell that no fast path takes is judged
by :mod:`.literals`. Pure: no I/O, and no knowledge of fields beyond their type.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fourways_runtime.errors import SourceError

from .columns import Array, text_ends
from .json_cells import is_json, json_values
from .literals import EXACT, from_text, is_float, shown
from .time_cells import counts_of, is_moment
from .times import is_time
from .values import Faults, exact, json_scalars, numbers

# Typed as Any: the stubs of pyarrow lag behind its methods.
Cells: TypeAlias = Any
_WIDE: dict[str, Any] = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float64": pa.float64(),
}
_EMPTY: dict[str, Any] = {"bool": pa.bool_(), "bytes": pa.binary(), "string": pa.string()}
"""Types of columns without any value, if they are not numbers."""

_FLOATS: dict[str, Any] = {
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}
_FLOAT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WHOLE = r"^-?[0-9]{1,18}$"
_TRUTH = r"^(?i:true|false|1|0)$"


def accepts(kind: str, shape: tuple[int, ...], found: Any) -> bool:
    """Return whether a field of the contract accepts a column of the Arrow type ``found``.

    Integers and floats are accepted for each other; each value is checked when it is decoded. A
    shaped field is a list nested as deep as its shape, or a flat list of all its elements.
    """
    depth = 0
    while pa.types.is_list(found) or pa.types.is_large_list(found) or is_fixed_list(found):
        found, depth = found.value_type, depth + 1
    if is_json(found):
        return True
    if pa.types.is_dictionary(found):
        found = found.value_type
    if depth not in ((len(shape), 1) if shape else (0,)):
        return False
    if pa.types.is_null(found):
        return True
    if kind in ("string", "bytes"):
        return is_text(found)
    if kind == "bool":
        return bool(pa.types.is_boolean(found))
    if is_time(kind):
        return is_text(found) or is_moment(found) or bool(pa.types.is_integer(found))
    types = pa.types
    return bool(types.is_integer(found) or types.is_floating(found) or types.is_decimal(found))


def leaf(kind: str, nullable: bool, found: Cells) -> tuple[Array, Faults]:
    """Decode scalars: the typed values (N,), and the faults of some of them.

    Floats of the requested type without nulls are returned as the column's own memory, read-only.
    """
    if is_json(found.type):
        return json_scalars(kind, nullable, json_values(found))
    if found.type == _FLOATS.get(kind) and not found.null_count:
        return found.to_numpy(), {}
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if pa.types.is_float16(found.type) and is_float(kind):
        found = found.cast(pa.float32())  # Arrow has few kernels for half floats.
    if pa.types.is_null(found.type):
        found = found.cast(_EMPTY.get(kind, pa.int64() if is_time(kind) else pa.float64()))
    if kind == "bytes" or is_time(kind):
        values, faults = _bytes(found) if kind == "bytes" else _times(kind, found)
        missing = _missing(found)
        if is_text(found.type) and kind != "bytes":
            length: Cells = pc.binary_length(found)
            missing |= np.asarray(length.fill_null(0)) == 0
    elif kind == "string":
        texts, missing, faults = texts_of(found)
        values = texts.to_numpy(zero_copy_only=False)
    else:
        faults = {}
        if is_text(found.type):
            found, faults = _parsed(kind, found)
        missing = _missing(found)
        if kind == "bool":
            if not pa.types.is_boolean(found.type):
                raise SourceError(f"{found.type} where bool was expected")
            values = found.fill_null(False).to_numpy(zero_copy_only=False)
        else:
            values, more = _from_arrow(np.dtype(kind), found, missing)
            faults |= more
    if not nullable and missing.any():
        faults = dict.fromkeys(np.flatnonzero(missing).tolist(), "missing") | faults
    return values, faults


def _bytes(found: Cells) -> tuple[Array, Faults]:
    """Return raw bytes (N,) as objects; texts are base64."""
    if not is_text(found.type) and not pa.types.is_null(found.type):
        raise SourceError(f"{found.type} where bytes were expected")
    values = np.full(len(found), b"", object)
    if not pa.types.is_string(found.type) and not pa.types.is_large_string(found.type):
        values[:] = [raw or b"" for raw in found.to_pylist()]
        return values, {}
    return _one_by_one("bytes", found, values)


def _times(kind: str, found: Cells) -> tuple[Array, Faults]:
    """Return the units (N,) since 1970 of dates, times, whole numbers or texts."""
    if is_moment(found.type):
        return counts_of(kind, found)
    if pa.types.is_integer(found.type):
        return numbers(np.dtype(np.int64), found.fill_null(0).to_numpy(zero_copy_only=False))
    if not is_text(found.type) and not pa.types.is_floating(found.type):
        raise SourceError(f"{found.type} where a date or time was expected")
    if pa.types.is_floating(found.type):
        return _from_arrow(np.dtype(np.int64), found, _missing(found))
    return _one_by_one(kind, found, np.zeros(len(found), np.int64))


def _one_by_one(kind: str, found: Cells, into: Array) -> tuple[Array, Faults]:
    texts, _, faults = texts_of(found)
    for at, text in enumerate(texts.to_pylist()):
        if text.strip() and at not in faults:
            value, fault = from_text(kind, text.strip())
            if fault is None:
                into[at] = value
            else:
                faults[at] = fault
    return into, faults


def _missing(found: Cells) -> Array:
    if not found.null_count:
        return np.zeros(len(found), bool)
    missing: Array = found.is_null().to_numpy(zero_copy_only=False)
    return missing


def texts_of(found: Cells) -> tuple[Cells, Array, Faults]:
    """Return valid UTF-8 without nulls, the mask of nulls, and the faults of invalid UTF-8."""
    if not is_text(found.type):
        raise SourceError(f"{found.type} where text was expected")
    missing = _missing(found)
    try:
        texts = found.cast(pa.string())
        texts.validate(full=True)
        return texts.fill_null("") if texts.null_count else texts, missing, {}
    except pa.ArrowInvalid:
        faults, kept = {}, []
        for at, raw in enumerate(found.cast(pa.binary()).to_pylist()):
            try:
                kept.append((raw or b"").decode())
            except UnicodeDecodeError:
                faults[at] = f"{shown(raw.decode(errors='replace'))} is not UTF-8"
                kept.append("")
        return pa.array(kept, pa.string()), missing, faults


def _parsed(kind: str, found: Cells) -> tuple[Cells, Faults]:
    """Parse text to bool, int64, uint64 or float64; an empty text is null.

    Whole columns are cast if Arrow accepts them all; texts that Arrow accepts but :mod:`.literals`
    does not (hexadecimal digits) are looked for first. Other cells are parsed one by one.
    """
    texts, missing, faults = texts_of(found)
    wide = {"bool": "bool", "uint64": "uint64"}.get(kind, "float64" if is_float(kind) else "int64")
    to = _WIDE[wide]
    if not faults and not (to in (pa.int64(), pa.uint64()) and _holds_hexadecimal(texts)):
        try:
            nulls = pa.scalar(None, pa.string())
            values = pc.if_else(pa.array(missing), nulls, texts).cast(to)
            return _unrounded(kind, values, texts, faults)
        except pa.ArrowInvalid:
            pass
    trimmed: Cells = pc.utf8_trim_whitespace(texts)
    form = {"bool": _TRUTH, "float64": _FLOAT}.get(wide, _WHOLE)
    plain: Cells = pc.match_substring_regex(trimmed, form)
    if wide == "uint64":
        plain = pc.and_(plain, pc.invert(pc.starts_with(trimmed, "-")))
    cells = pc.if_else(plain, trimmed, pa.scalar(None, pa.string())).cast(to).to_pylist()
    for at in np.flatnonzero(~plain.to_numpy(zero_copy_only=False)).tolist():
        text = trimmed[at].as_py()
        if text and at not in faults:
            cells[at], fault = from_text(kind, text)
            if fault:
                faults[at] = fault
    return _unrounded(kind, pa.array(cells, to), trimmed, faults)


def may_be_rounded(kind: str, floats: Cells) -> bool:
    """Return whether any of these floats is so large that it may be rounded, in one check."""
    limits: Any = pc.min_max(floats)
    low, high = limits["min"].as_py(), limits["max"].as_py()
    return low is not None and not (-EXACT[kind] < low and high < EXACT[kind])


def _holds_hexadecimal(texts: Cells) -> bool:
    data = texts.buffers()[2]
    if data is None:
        return False
    ends = text_ends(texts)
    raw = memoryview(data)[ends[0] : ends[-1]].tobytes()
    return b"x" in raw or b"X" in raw


def _unrounded(kind: str, values: Cells, texts: Cells, faults: Faults) -> tuple[Cells, Faults]:
    """Report the integers among parsed floats that the type would round."""
    if not is_float(kind) or not may_be_rounded(kind, values):
        return values, faults
    floats = values.fill_null(0).to_numpy(zero_copy_only=False)
    for at in np.flatnonzero(np.abs(floats) >= EXACT[kind]).tolist():
        if at not in faults:
            _, fault = from_text(kind, texts[at].as_py().strip())
            if fault:
                faults[at] = fault
    return values, faults


def _from_arrow(to: np.dtype[Any], found: Cells, missing: Array) -> tuple[Array, Faults]:
    if pa.types.is_decimal(found.type):
        return _from_decimals(to, found, missing)
    if not (pa.types.is_integer(found.type) or pa.types.is_floating(found.type)):
        raise SourceError(f"{found.type} where {to} was expected")
    values, faults = numbers(to, found.fill_null(0).to_numpy(zero_copy_only=False))
    if to.kind == "f":
        if missing.any():
            values[missing] = np.nan
    elif pa.types.is_floating(found.type):
        faults = exact(to, found.fill_null(0).to_numpy(zero_copy_only=False), faults)
    return values, faults


def _from_decimals(to: np.dtype[Any], found: Cells, missing: Array) -> tuple[Array, Faults]:
    """Decode decimals through their text form, so that no digit is lost."""
    if to.kind != "f":
        try:
            return numbers(to, found.fill_null(0).cast(_WIDE[_widest(to)]).to_numpy())
        except pa.ArrowInvalid:
            pass
    parsed, faults = _parsed(to.name, found.cast(pa.string()))
    values, more = numbers(to, parsed.fill_null(0).to_numpy(zero_copy_only=False))
    if to.kind == "f" and missing.any():
        values[missing] = np.nan
    return values, more | faults


def _widest(to: np.dtype[Any]) -> str:
    return "uint64" if to == np.uint64 else "int64"


def is_text(found: Any) -> bool:
    """Return whether cells are text: strings, bytes that may be UTF-8, or a dictionary of them."""
    types = pa.types
    if types.is_dictionary(found):
        found = found.value_type
    return bool(
        types.is_string(found)
        or types.is_large_string(found)
        or types.is_string_view(found)
        or types.is_binary(found)
        or types.is_large_binary(found)
        or types.is_binary_view(found)
    )


def is_fixed_list(found: Any) -> bool:
    """Return whether cells are lists of one length."""
    return bool(pa.types.is_fixed_size_list(found))


def is_list(found: Any) -> bool:
    """Return whether cells are lists."""
    return bool(pa.types.is_list(found) or pa.types.is_large_list(found)) or is_fixed_list(found)
