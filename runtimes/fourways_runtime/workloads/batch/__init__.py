"""The batch shell: one run, from the table to the published predictions, or nothing.

Several workers share a run through its ledger. :mod:`.run` is one worker's part from start to end,
:mod:`.engine` decides which processes score the chunks, :mod:`.run_context` holds each process's
state of the run, :mod:`.claims` handles claimed chunks, :mod:`.prefetch` overlaps reading, scoring
and writing, :mod:`.incremental` finds the rows that need no scoring, and :mod:`.checks` holds the
checks before publication. On a Ray cluster, :mod:`.ray_engine` distributes the run and
:mod:`.wait_for_run` waits for it. Whichever process dies, and whenever, readers see either the
previous run or this one, always complete.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fourways_api import DriftStatus, QualityStatus, RunReport, RuntimeConfig
from fourways_runtime.config import read_config, read_run
from fourways_runtime.io.store.base import PublishedRun
from fourways_runtime.process import end_with, run_job

from .limits import RunTally
from .run import BatchRun

if TYPE_CHECKING:
    from fourways_runtime.io.store.runs.record import RunRecord

__all__ = ["BatchRun", "main", "open_run", "read_config", "read_run", "succeeded"]

logger = logging.getLogger("fourways.batch")

COLLECT_EVERY = 100_000
"""Garbage collector threshold: net new objects between two collections."""


def main() -> int:
    """Work on the batch run named in the environment; return the process's exit code."""
    # Rows are arrays, not objects: frequent collections would only rescan the libraries' objects.
    gc.set_threshold(COLLECT_EVERY)
    progress: RunTally | None = None

    def work(config: RuntimeConfig) -> RunReport:
        nonlocal progress
        run = open_run(config, read_run())
        progress = run.progress
        run.context.end_if_stuck(lambda error: end_with(error, config, logger, completed))
        return succeeded(run.execute(), run.notes, run.progress.drift, run.progress.quality)

    def completed(report: RunReport) -> RunReport:
        return report if progress is None else _failed(report, progress)

    return run_job(read_config, work, logger, completed)


def open_run(config: RuntimeConfig, name: str) -> BatchRun:
    """Return a run on the engine that its deployment configures. Raises ConfigError."""
    if config.batch is not None and config.batch.engine == "Ray":
        from .ray_engine import RayEngine

        return BatchRun(config, name, RayEngine())
    return BatchRun(config, name)


def succeeded(
    published: PublishedRun | RunRecord,
    notes: Sequence[str] = (),
    drift: DriftStatus | None = None,
    quality: QualityStatus | None = None,
) -> RunReport:
    """Return the report of a published run."""
    summary = f"{published.rows} rows published, {published.rejects} rejected"
    return RunReport(
        outcome="Succeeded",
        message="; ".join([summary, *notes]),
        rows=published.rows,
        rejects=published.rejects,
        digest=published.digest,
        version=published.version,
        drift=drift,
        quality=quality,
    )


def _failed(report: RunReport, progress: RunTally) -> RunReport:
    so_far = {"rows": progress.rows, "rejects": progress.rejects, "digest": progress.digest}
    return report.model_copy(update=so_far)
