"""What workers say of themselves now, for readers that do not reach them: the gateway's page.

A gateway has no way to a stream worker, so each worker writes a small document every few seconds.
Times are those of the database's clock. The row of a worker that has ended is not read after
:data:`FRESH_SECONDS`, and is deleted by another worker later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from .database import Database

FRESH_SECONDS = 30
"""Age up to which a report counts."""

_KEPT_SECONDS = 3600
_WRITE = """
    INSERT INTO @worker_reports (namespace, deployment, worker, document, told_at)
    VALUES (?, ?, ?, ?, :now) ON CONFLICT (namespace, deployment, worker)
    DO UPDATE SET document = excluded.document, told_at = excluded.told_at"""
_GONE = f"""
    DELETE FROM @worker_reports
    WHERE namespace = ? AND deployment = ? AND told_at < :now - {_KEPT_SECONDS}"""  # noqa: S608
_READ = f"""
    SELECT worker, document, :now - told_at FROM @worker_reports
    WHERE namespace = ? AND deployment = ? AND told_at > :now - {FRESH_SECONDS}
    ORDER BY worker"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker's latest report."""

    worker: str
    age_seconds: float
    report: dict[str, Any]


def write_report(
    data: Database, namespace: str, key: str, worker: str, report: dict[str, Any]
) -> None:
    """Replace a worker's report, and delete those of workers that ended long ago."""
    whose = (namespace, key)
    data.change(_WRITE, (*whose, worker, orjson.dumps(report).decode()))
    data.change(_GONE, whose)


def reports_of(data: Database, namespace: str, key: str) -> list[WorkerReport]:
    """Return the present reports of a deployment's workers."""
    return [
        WorkerReport(str(worker), max(0.0, round(float(age), 1)), orjson.loads(document))
        for worker, document, age in data.rows(_READ, (namespace, key))
    ]
