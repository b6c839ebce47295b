"""What is known of a batch run, as people who look after runs see it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it is listed."""

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
    """full, or how new rows were told from old: watermark, hash."""

    carried: int
    """Predictions taken over from the run before."""

    reason: str
    message: str
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How the values of one output moved: its mean in either run."""

    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class RunDifference:
    """How two runs differ, by entity key."""

    only_before: int
    only_after: int
    common: int
    changed: int
    """Keys in both with another value in any output."""

    shifts: dict[str, Shift]
    """By output, for numbers."""


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """What one worker has recorded."""

    name: str
    rows: int
    rejects: int
    rows_per_second: float
    chunks: int
    """Chunks it has claimed and not recorded yet."""

    alive: bool


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is, all workers together."""

    state: str
    rows: int
    total_rows: int | None
    rejects: int
    chunks: int
    chunks_done: int
    rows_per_second: float
    eta_seconds: float | None
    workers: tuple[WorkerProgress, ...]
