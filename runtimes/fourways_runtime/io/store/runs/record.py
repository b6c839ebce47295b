"""The records of batch runs, as operators and commands see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as listed."""

    name: str
    state: str
    """scoring, sealed, failed or published."""

    version: str
    digest: str
    started_at: datetime
    published_at: datetime | None
    rows: int
    rejects: int
    current: bool
    """Whether readers see it."""

    kind: str
    """full, or how new rows were distinguished from old ones: watermark or hash."""

    carried: int
    """Number of predictions carried over from the previous run."""

    reason: str
    message: str
    """Why it failed."""

    drift: dict[str, Any] | None = None
    """How its records differ from those of the training: a ``DriftStatus`` as JSON."""

    quality: dict[str, Any] | None = None
    """How well its predictions agree with labels: a ``QualityStatus`` as JSON."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many finite values of one output are in each bin, in two runs."""

    low: float
    high: float
    """The least and the greatest value of both runs. The bins are of equal width; of equal values,
    there is one."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shift:
    """How the values of one output changed: its mean in each run, and how they are distributed."""

    before: float | None
    after: float | None
    histogram: Histogram | None = None
    """None for outputs beyond the first eight, and without finite values."""


@dataclass(frozen=True, slots=True)
class RunDifference:
    """How two runs differ, by entity key."""

    only_before: int
    only_after: int
    common: int
    changed: int
    """Number of keys in both runs for which any output differs."""

    shifts: dict[str, Shift]
    """By output, for numeric outputs."""


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """The recorded progress of one worker."""

    name: str
    rows: int
    rejects: int
    rows_per_second: float
    chunks: int
    """Number of chunks that it has claimed but not recorded yet."""

    alive: bool


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The progress of a run, over all workers."""

    state: str
    rows: int
    total_rows: int | None
    rejects: int
    chunks: int
    chunks_done: int
    rows_per_second: float
    eta_seconds: float | None
    workers: tuple[WorkerProgress, ...]
