"""Dates and times in Arrow's columns as whole numbers: see :mod:`.times`. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from .columns import Array
from .times import DAY, PER_SECOND, outside

_MOST = int(np.iinfo(np.int64).max)
_MOST_DAYS = int(np.iinfo(np.int32).max)
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def is_moment(found: Any) -> bool:
    """Return whether cells of an Arrow type are dates or times."""
    return bool(pa.types.is_timestamp(found) or pa.types.is_date(found))


def counts_of(kind: str, found: Any) -> tuple[Array, dict[int, str]]:
    """Convert Arrow dates or times (N,); return the units (0 for null), and faults by cell."""
    types = pa.types
    whole: Any = pa.int32() if types.is_date32(found.type) else pa.int64()
    values: Array = found.cast(whole).fill_null(0).to_numpy().astype(np.int64)
    # Both as units of a day, so that a date is one of them.
    unit = 1 if types.is_date32(found.type) else DAY * _per_second(found.type)
    wanted = 1 if kind == "date" else DAY * PER_SECOND[kind]
    faults = _infinite(found.type, values)
    if wanted <= unit:
        return values // (unit // wanted), faults
    ratio = wanted // unit
    limit = _MOST // ratio
    far = (values > limit) | (values < -limit)
    more = {int(at): outside(_shown(found[int(at)]), kind) for at in np.flatnonzero(far)}
    return np.where(far, 0, values) * ratio, more | faults


def _infinite(found: Any, values: Array) -> dict[int, str]:
    """Return faults for the ends of a type's range: PostgreSQL and DuckDB mean infinity by them.

    In nanoseconds they are moments.
    """
    if pa.types.is_timestamp(found) and found.unit == "ns":
        return {}
    least = _MOST_DAYS if pa.types.is_date32(found) else _MOST
    return {
        int(at): f"{'inf' if values[at] > 0 else '-inf'} is not finite"
        for at in np.flatnonzero((values >= least) | (values <= -least))
    }


def _shown(cell: Any) -> str:
    try:
        return str(cell.as_py())
    except OverflowError:  # Python's years are 1 to 9999.
        return str(cell.cast(pa.string()))


def _per_second(found: Any) -> int:
    return 10**3 if pa.types.is_date64(found) else _UNITS[found.unit]
