"""What the workers of a run agree on: its settings, its plan, their claims, its totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fourways_runtime.scoring.splits import Split


@dataclass(frozen=True, slots=True)
class RunSettings:
    """A run's settings besides the model; they decide what the next run may carry over."""

    fingerprint: str
    """Of the model, the contract and the source: a run is resumed only if it is the same."""

    watermark: str | None = None
    row_hash: bool = False
    own_table: bool = True
    """False if predictions go to a sink and the store keeps only the record."""


@dataclass(frozen=True, slots=True)
class Base:
    """The published run, with what the next run needs to build on it."""

    run_id: int
    version: str
    digest: str
    contract: str
    view: str
    """The table or view that readers use."""

    rows: int
    watermark_column: str | None
    row_hash: bool
    watermark: Any
    since_full: int
    own_table: str
    base_table: str
    """The table beneath its own, if it has two."""

    base_rows: int
    duplicates: int
    """Number of rows replaced by a later row with the same key."""

    sections: bool
    """Whether its sections are recorded, so that their rows can be recognised."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The layout of a run, decided once by the first worker."""

    splits: Sequence[Split]
    total_rows: int | None
    kind: str = "full"
    """full, or how new rows are distinguished from old ones: watermark or hash."""

    base: Base | None = None
    watermark: Any = None
    because: str | None = None
    """Why all rows are scored although the run was meant to be incremental."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A chunk to score."""

    number: int
    split: Split
    attempt: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The totals of a run so far, over all workers."""

    chunks: int
    rows: int
    rejects: int
    predictions: int
    done: int
    todo: int

    @property
    def complete(self) -> bool:
        """Tell whether every chunk is recorded."""
        return self.done == self.chunks


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run was abandoned, as recorded by the worker that detected it."""

    reason: str
    message: str
    exit_code: int
