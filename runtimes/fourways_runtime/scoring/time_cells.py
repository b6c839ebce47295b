"""Dates and times in Arrow's columns as whole numbers: see :mod:`.times`. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from .columns import Array
from .times import DAY, PER_SECOND, outside

_MOST = int(np.iinfo(np.int64).max)
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
    if wanted <= unit:
        return values // (unit // wanted), {}
    ratio = wanted // unit
    limit = _MOST // ratio
    far = (values > limit) | (values < -limit)
    faults = {int(at): outside(found[int(at)].as_py(), kind) for at in np.flatnonzero(far)}
    return np.where(far, 0, values) * ratio, faults


def _per_second(found: Any) -> int:
    return 10**3 if pa.types.is_date64(found) else _UNITS[found.unit]
