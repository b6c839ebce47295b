"""Records in columns: the data types that flow through the pipeline.

Only the data types that entry points, pipeline and store pass to one another; no I/O, and no
library but numpy, so that a server that answers from memory need not load another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Key = str | int
"""An entity key as a Python value."""

Rows = NDArray[np.int64]
Columns = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Reject:
    """A rejected record: its position in the source (from 0), its key if any, and the reason."""

    row: int
    key: str | None
    field: str
    reason: str
    of_model: bool = False
    """Whether the model is at fault, and not the record."""

    def __str__(self) -> str:
        """Return field and reason as one line, such as ``age: -3 is below 0``."""
        return f"{self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts (N,) in Arrow's format, convertible to an array of str objects.

    A million texts that are only read, scored and written are never converted to a million objects.
    """

    arrow: Any
    """A pyarrow.StringArray without nulls."""

    def __len__(self) -> int:
        return len(self.arrow)

    def __getitem__(self, which: Any) -> Any:
        """Return one text by its index, or those of a slice, a mask or an array of indices."""
        if isinstance(which, slice):
            return Texts(self.arrow[which])
        if not isinstance(which, np.ndarray):
            return self.arrow[int(which)].as_py()
        return Texts(self.arrow.filter(which) if which.dtype == bool else self.arrow.take(which))

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        found: Array = self.arrow.to_numpy(zero_copy_only=False)
        return found if dtype is None else found.astype(dtype)

    def __arrow_array__(self, type: Any = None) -> Any:
        return self.arrow if type in (None, self.arrow.type) else self.arrow.cast(type)

    def tolist(self) -> list[str]:
        """Return them as a list."""
        found: list[str] = self.arrow.to_pylist()
        return found


def text_ends(texts: Any) -> Array:
    """Return the offsets of a pyarrow array of string or binary: (N + 1,) of int32.

    Each text begins at its own offset and ends at the next one.
    """
    found: Array = np.frombuffer(texts.buffers()[1], np.int32)
    return found[texts.offset : texts.offset + len(texts) + 1]


Keys = Array | Texts
"""Entity keys (N,): int64, str objects, or texts."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records that satisfy the contract.

    Each column has shape (N, *shape of the field), of the contract's type (strings are objects; a
    missing number is NaN, a missing string ""). ``rows`` (N,) is each record's position in the
    source.
    """

    keys: Keys
    rows: Rows
    columns: Columns

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions by entity key. Each column is an output of the contract, of shape (N, *shape).

    ``rows`` (N,) is the position in the source of each prediction's record: rejects leave gaps in
    it, and of two predictions for one key the store keeps the later one.
    """

    keys: Keys
    rows: Rows
    columns: Columns

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Scored:
    """The result of one batch of raw records."""

    predictions: Predictions
    rejects: list[Reject] = field(default_factory=list)
    inputs: Columns = field(default_factory=dict)
    """The inputs of the records that were passed to the model, for a profile."""
