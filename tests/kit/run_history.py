"""The record of runs as a gateway reads it, in memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

from fourways_runtime.errors import ConfigError, StoreUnavailable
from fourways_runtime.io.store.base import PublishedRun
from fourways_runtime.io.store.recent import RecentAnswers, RecentDeadLetter
from fourways_runtime.io.store.reports import WorkerReport
from fourways_runtime.io.store.runs.record import (
    Histogram,
    RunDifference,
    RunProgress,
    RunRecord,
    Shift,
    WorkerProgress,
)
from fourways_runtime.scoring.columns import Reject
from tests.kit.gateway_plane import CHURN, DIGEST, run

AT = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
DRIFT = {
    "fields": [
        {"name": "<b>age", "side": "input", "psi": 0.71, "missing": 0.25, "drifted": True},
        {"name": "score", "side": "output", "psi": 0.01, "ks": 0.2, "missing": 0, "drifted": False},
    ],
    "drifted": 1,
    "records": 1400,
    "rejects": 0.125,
    "measuredAt": "2026-03-01T03:00:00Z",
}
QUALITY = {
    "run": "churn-2",
    "output": "score",
    "labels": 1234,
    "metrics": [{"name": "AUC", "value": 0.8125}],
    "measuredAt": "2026-03-02T03:00:00Z",
}
RUNS = [
    RunRecord(
        "churn-3",
        "failed",
        "8",
        DIGEST,
        AT,
        None,
        5,
        9,
        False,
        "full",
        0,
        "TooManyRejects",
        "9 of 14 rows were rejected",
    ),
    RunRecord(
        "churn-2",
        "published",
        "7",
        DIGEST,
        AT,
        AT,
        14,
        0,
        True,
        "watermark",
        12,
        "",
        "",
        DRIFT,
        QUALITY,
    ),
    RunRecord("churn-1", "published", "7", DIGEST, AT, AT, 13, 1, False, "full", 0, "", ""),
]


class MemoryHistory:
    """A History over lists. ``down`` makes it fail, ``hold`` makes it wait."""

    def __init__(self) -> None:
        self.current = "churn-2"
        self.reports: dict[str, list[WorkerReport]] = {}
        self.answers: dict[str, RecentAnswers] = {}
        self.letters: dict[str, list[RecentDeadLetter] | None] = {}
        self.asked_answers: list[tuple[str, str | None, int]] = []
        self.down = False
        self.scoring = True
        self.hold: threading.Event | None = None
        self.opened = self.closed = 0

    def _known(self, namespace: str, deployment: str, *runs: str) -> bool:
        if self.hold is not None:
            self.hold.wait(5)
        if self.down:
            raise StoreUnavailable("connection to 10.1.2.3 refused")
        known = (namespace, deployment) == ("shop", "churn")
        for name in runs:
            if not known or name not in {r.name for r in RUNS}:
                raise ConfigError(f"the store has no run {name} of {deployment}")
        return known

    def runs(self, namespace: str, deployment: str) -> list[RunRecord]:
        known = self._known(namespace, deployment)
        return [replace(r, current=r.name == self.current) for r in RUNS] if known else []

    def difference(self, namespace: str, deployment: str, before: str, after: str) -> RunDifference:
        self._known(namespace, deployment, before, after)
        bins = Histogram(0.0, 1.0, (3, 9), (6, 6))
        return RunDifference(1, 2, 12, 3, {"score": Shift(0.5, float("nan"), bins)})

    def worker_reports(self, namespace: str, deployment: str) -> list[WorkerReport]:
        self._known(namespace, "churn")
        return self.reports.get(deployment, [])

    def dead_letters(
        self, namespace: str, deployment: str, limit: int
    ) -> list[RecentDeadLetter] | None:
        self._known(namespace, "churn")
        found = self.letters.get(deployment, [])
        return None if found is None else found[:limit]

    def recent_answers(
        self, namespace: str, deployment: str, mode: str | None, limit: int
    ) -> RecentAnswers:
        self._known(namespace, "churn")
        self.asked_answers.append((deployment, mode, limit))
        return self.answers.get(deployment, RecentAnswers([]))

    def rejects(self, namespace: str, deployment: str, run: str, limit: int = 100) -> list[Reject]:
        self._known(namespace, deployment, run)
        return [Reject(n, None if n else "c0", "age", f"{n} is below 0") for n in range(limit)]

    def progress(self, namespace: str, deployment: str, run: str) -> RunProgress:
        self._known(namespace, deployment, run)
        workers = (WorkerProgress("pod/0", 5, 1, 2.5, 1, True),)
        return RunProgress("scoring", 5, 10, 1, 4, 2, 2.5, 2.0, workers)

    def under_way(self, namespace: str) -> list[tuple[str, str]]:
        self._known(namespace, "churn")
        return [("churn", "churn-3")] if self.scoring else []

    def rollback(self, namespace: str, deployment: str, run: str | None = None) -> str:
        assert run is not None
        self._known(namespace, deployment, run)
        self.current = run
        return run

    def published(self, namespace: str, deployment: str) -> PublishedRun | None:
        record = next(r for r in RUNS if r.name == self.current)
        return replace(run(CHURN), name=self.current, rows=record.rows, rejects=record.rejects)

    def close(self) -> None:
        self.closed += 1
