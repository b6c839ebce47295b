"""Converts JSON values and numpy columns to the typed values of the data contract.

Owns what a type cannot hold, and where in a record a fault is. A single JSON value is judged by
:mod:`.literals`. No library but numpy: a process that scores requests or single records loads no
Arrow, which :mod:`.cells` reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fourways_api import InputField, OutputField
from fourways_runtime.errors import SourceError

from .columns import Array
from .literals import EXACT, from_json, from_text, said, whole
from .literals import shown as shown
from .times import is_time

Faults = dict[int, str]
"""Error messages by element or by record."""


def numpy_type(kind: str) -> np.dtype[Any]:
    """Return the numpy type of a contract type; strings and bytes are objects, times int64."""
    if is_time(kind):
        return np.dtype(np.int64)
    return np.dtype(object if kind in ("string", "bytes") else kind)


def no_values(field: InputField | OutputField) -> Array:
    """Return the values of a field for no records, (0, *shape); a free dimension counts as 1."""
    return np.empty((0, *map(abs, field.shape)), numpy_type(field.type))


def json_scalars(kind: str, nullable: bool, values: Sequence[Any]) -> tuple[Array, Faults]:
    """Decode JSON values; return the typed values (N,), and the faults of some of them."""
    to = numpy_type(kind)
    blank: Any = {"string": "", "bytes": b""}.get(kind, math.nan if to.kind == "f" else 0)
    kept = [blank] * len(values)
    faults: Faults = {}
    for at, value in enumerate(values):
        fault: str | None = None
        if value is not None:
            value, fault = from_json(kind, value)
        if fault is not None:
            faults[at] = fault
        elif value is not None:
            kept[at] = value
        elif not nullable:
            faults[at] = "missing"
    if to.kind != "f":
        return np.array(kept, to), faults
    cast, more = numbers(to, np.array(kept, np.float64))
    return cast, more | faults


def json_shaped(field: InputField, parsed: Sequence[Any]) -> tuple[Array, Faults]:
    """Decode a shaped field of fixed sizes from JSON values, one per record; None is missing."""
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
    return filled(field, values, faults)


def nothing(field: InputField) -> float | str:
    """Return an element of a nullable field that is missing."""
    return "" if field.type == "string" else math.nan


def filled(field: InputField, values: Array, faults: Faults) -> tuple[Array, Faults]:
    """Fill in the records of a nullable field that are missing as a whole."""
    if field.nullable:
        for at in [at for at, fault in faults.items() if fault == "missing"]:
            values[at] = nothing(field)
            del faults[at]
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
                    misshapen(-1, depth, field.shape)
                    if each is None
                    else (f"{said(each)} is not a list of {field.type}")
                )
            if len(each) != size:
                return misshapen(len(each), depth, field.shape)
        level = [element for each in level for element in each]
    into += level
    return None


def misshapen(length: int, depth: int, shape: tuple[int, ...]) -> str:
    """Return the message that a list at some depth has the wrong length; below 0: no list."""
    if length < 0:
        return "missing"
    return f"{length} elements at depth {depth + 1}, shape {list(shape)} was expected"


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


# ---------------------------------------------------------------- numpy columns


def typed(kind: str, nullable: bool, values: Array) -> tuple[Array, Faults]:
    """Convert a numpy column (M,) of any type to the contract's; return faults by element.

    Raises:
        SourceError: no value of the column's type is one of the contract's.

    """
    to, found = numpy_type(kind), values.dtype
    if kind == "string":
        if found.kind in "biuf":
            raise SourceError(f"{found} where text was expected")
        return _texts(nullable, values)
    if found == to and (kind != "bytes" or set(map(type, values)) <= {bytes}):
        return values, {}
    if found.kind not in "biuf" or kind == "bytes":
        return _one_by_one(kind, nullable, values.tolist())
    if "bool" in (found.name, kind):
        raise SourceError(f"{found} where {kind} was expected")
    cast, faults = numbers(to, values)
    return cast, exact(to, values, faults) if found.kind == "f" and to.kind != "f" else faults


def _texts(nullable: bool, values: Array) -> tuple[Array, Faults]:
    listed = values.tolist()
    if set(map(type, listed)) <= {str} and _is_unicode("".join(listed)):
        return values.astype(object, copy=False), {}
    faults: Faults = {}
    kept = np.empty(len(listed), object)
    for at, value in enumerate(listed):
        kept[at], fault = _text(value)
        if fault is not None:
            faults[at] = fault
        elif kept[at] is None:
            kept[at] = ""
            if not nullable:
                faults[at] = "missing"
    return kept, faults


def _text(value: Any) -> tuple[str | None, str | None]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, None
    if isinstance(value, bytes):
        try:
            return value.decode(), None
        except UnicodeDecodeError:
            return "", f"{shown(value.decode(errors='replace'))} is not UTF-8"
    if isinstance(value, str) and _is_unicode(value):
        return str(value), None
    return "", f"{shown(str(value))} is not text"


def _is_unicode(text: str) -> bool:
    """Return whether a text can be encoded: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_by_one(kind: str, nullable: bool, values: Sequence[Any]) -> tuple[Array, Faults]:
    faults: Faults = {}
    parsed: list[Any] = []
    for at, value in enumerate(values):
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, str):
            text = value.strip()
            value, fault = from_text(kind, text) if text else (None, None)
            if fault is not None:
                faults[at] = fault
                value = 0 if kind != "bool" else False
        parsed.append(value)
    found, more = json_scalars(kind, nullable, parsed)
    return found, more | faults


def numbers(to: np.dtype[Any], values: Array) -> tuple[Array, Faults]:
    """Cast numbers (M,) to the type ``to``; return them, and a fault for each it cannot hold.

    NaN stays NaN in a float type and is a fault in any other.
    """
    if to.kind != "f":
        return _whole(to, values)
    cast, bad = rounded(values, to)
    return cast, {
        int(at): f"{shown(values[at])} "
        f"{'does not fit' if math.isinf(cast[at]) else 'would be rounded in'} {to}"
        for at in np.flatnonzero(bad)
    }


def _whole(to: np.dtype[Any], values: Array) -> tuple[Array, Faults]:
    limits = np.iinfo(to)
    faults: Faults = {}
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        # 2**63 is exact as a float, 2**63 - 1 is not: compare below the next power.
        inside = (values >= limits.min) & (values < float(limits.max + 1))
        good = inside & (np.trunc(values) == values)
    else:
        if np.can_cast(values.dtype, to):
            return values.astype(to, copy=False), faults
        lowest = max(limits.min, int(np.iinfo(values.dtype).min))
        highest = min(limits.max, int(np.iinfo(values.dtype).max))
        good = inside = (values >= lowest) & (values <= highest)
    for at in np.flatnonzero(~good):
        value = values[at]
        if value != value:
            faults[int(at)] = "missing"
        elif math.isinf(value):
            faults[int(at)] = f"{shown(value)} is not finite"
        elif inside[at]:
            faults[int(at)] = f"{shown(value)} is not a whole number"
        else:
            faults[int(at)] = f"{shown(value)} is outside {to} ({limits.min} to {limits.max})"
    return np.where(good, values, 0).astype(to), faults


def exact(to: np.dtype[Any], floats: Array, faults: Faults) -> Faults:
    """Add faults for the floats (M,) that may be rounded integers."""
    source = floats.dtype.name
    # The negation includes NaN and infinity, which are faults already.
    large = np.flatnonzero(~(np.abs(floats) < EXACT[source]))
    more = {at: whole(to.name, float(floats[at]), source)[1] for at in large.tolist()}
    return {at: fault for at, fault in more.items() if fault is not None} | faults


def rounded(values: Array, to: np.dtype[Any]) -> tuple[Array, Array]:
    """Cast integers or floats to a float type; return them and a mask of unacceptable losses.

    A loss is unacceptable if an integer changes its value, or a finite float becomes infinite.
    """
    with np.errstate(over="ignore"):
        cast = values.astype(to)
    if values.dtype.kind == "f":
        return cast, np.isinf(cast) & np.isfinite(values)
    exact = 2 ** (np.finfo(to).nmant + 1)
    lossy = (values > exact) | (values < -exact) if values.dtype.kind == "i" else values > exact
    for at in np.flatnonzero(lossy):
        lossy[at] = math.isinf(cast[at]) or int(cast[at]) != int(values[at])
    return cast, lossy
