"""How the values of an output are distributed in two runs, counted by the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .record import Histogram

BINS = 20
MOST = 8
"""Number of outputs whose values are counted: each takes two passes over both runs."""

# Infinities are beyond it, and PostgreSQL's NaN is above everything.
_FINITE = 1.7976931348623157e308

Ask = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


def histogram(ask: Ask, views: Sequence[str], column: str) -> Histogram | None:
    """Count the finite values of a column, given as SQL, in both views; None if there are none."""
    value = f"CAST({column} AS double precision)"
    finite = f"{value} BETWEEN ? AND ?"
    limits = (-_FINITE, _FINITE)
    query = f"SELECT min({value}), max({value}) FROM {{}} WHERE {finite}"  # noqa: S608
    found = [ask(query.format(view), limits)[0] for view in views]
    lows = [low for low, _ in found if low is not None]
    if not lows:
        return None
    low, high = min(lows), max(high for _, high in found if high is not None)
    # Not by the width, which overflows between the least and the greatest float.
    inner = [at / BINS for at in range(1, BINS)]
    bounds = [low * (1 - share) + high * share for share in inner] if low < high else []
    below = "".join(f", coalesce(sum(CASE WHEN {value} < ? THEN 1 ELSE 0 END), 0)" for _ in bounds)
    query = f"SELECT count(*){below} FROM {{}} WHERE {finite}"  # noqa: S608
    counts = []
    for view in views:
        ((total, *cumulative),) = ask(query.format(view), (*bounds, *limits))
        edges = [0, *map(int, cumulative), int(total)]
        counts.append(tuple(np.diff(edges).tolist()))
    return Histogram(float(low), float(high), *counts)
