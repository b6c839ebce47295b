"""The record of runs, as people who look after them see it.

Owns the answers to what people ask of a store: which runs there were, how far one is, what two
differ in, what one has refused. The databases are asked elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fourways_runtime.scoring.columns import Reject

from ..base import PublishedRun


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


class History(Protocol):
    """A store as people who look after runs see it (blocking).

    Every call may raise StoreUnavailable, and ConfigError for a run there is none of.
    """

    def runs(self, namespace: str, deployment: str) -> list[RunRecord]:
        """List a deployment's runs, the latest first."""
        ...

    def under_way(self, namespace: str) -> list[tuple[str, str]]:
        """Return the runs of a namespace that are being written, as deployment and name."""
        ...

    def difference(self, namespace: str, deployment: str, before: str, after: str) -> RunDifference:
        """Compare two runs by entity key."""
        ...

    def rejects(self, namespace: str, deployment: str, run: str, limit: int = 100) -> list[Reject]:
        """Return the rows a run has refused, by position."""
        ...

    def progress(self, namespace: str, deployment: str, run: str) -> RunProgress:
        """Return how far a run is."""
        ...

    def rollback(self, namespace: str, deployment: str, run: str | None = None) -> str:
        """Let readers see an earlier run, the last one before unless named; return its name."""
        ...

    def published(self, namespace: str, deployment: str) -> PublishedRun | None:
        """Return the run readers see now."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def open_history(uri: str) -> History:
    """Connect to a store (blocking). Raises ConfigError, StoreUnavailable."""
    from .. import open_writer

    return open_writer(uri)
