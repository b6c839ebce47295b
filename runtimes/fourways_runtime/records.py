"""Records in columns: what flows through the pipeline. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Columns = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Reject:
    """One record refused: where it stood in the source, its key if it had one, and why."""

    row: int
    key: str | None
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Records:
    """Records that keep the contract.

    ``keys`` has shape (N,) of int64 or str objects; each column has shape (N, *shape of the field).
    ``rows`` (N,) is each record's position in the source.
    """

    keys: Array
    rows: NDArray[np.int64]
    columns: Columns

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers by entity key. Each column is an output of the contract, of shape (N, *shape)."""

    keys: Array
    columns: Columns

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Scored:
    """What one batch of raw records came to."""

    predictions: Predictions
    rejects: list[Reject] = field(default_factory=list)
