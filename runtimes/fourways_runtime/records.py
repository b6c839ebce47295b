"""Records in columns: what flows through the pipeline.

Only the shapes that shells, pipeline and store hand to one another; no I/O, and no library but
numpy, so that a server that answers from memory need not load one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = NDArray[np.int64]
Columns = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Reject:
    """One record refused: where it stood in the source (from 0), its key if it had one, and why."""

    row: int
    key: str | None
    field: str
    reason: str

    def __str__(self) -> str:
        """Return field and reason as one line, such as ``age: -3 is below 0``."""
        return f"{self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Records:
    """Records that keep the contract.

    ``keys`` has shape (N,) of int64 or str objects; each column has shape (N, *shape of the field),
    of the contract's type (strings are objects; a missing number is NaN, a missing string "").
    ``rows`` (N,) is each record's position in the source.
    """

    keys: Array
    rows: Rows
    columns: Columns

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers by entity key. Each column is an output of the contract, of shape (N, *shape).

    ``rows`` (N,) is the position in the source of the record each answer belongs to: rejects leave
    gaps in it, and of two answers for one key the store keeps the one further down.
    """

    keys: Array
    rows: Rows
    columns: Columns

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Scored:
    """What one batch of raw records came to."""

    predictions: Predictions
    rejects: list[Reject] = field(default_factory=list)
