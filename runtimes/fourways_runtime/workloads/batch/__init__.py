"""The batch shell: one run, from the table to the published predictions, or nothing.

Several workers share a run through its ledger: :mod:`.run` is one worker's part from start to end,
:mod:`.engine` who scores its chunks, :mod:`.run_context` what each process has of it,
:mod:`.claims` which chunks it takes, :mod:`.prefetch` reading, scoring and writing at the same
time, :mod:`.incremental` what need not be scored again, :mod:`.checks` what keeps a run from being
published. On a Ray cluster :mod:`.ray_data` shares the run out; :mod:`.wait_for_run` waits for it.
Whatever ends whichever process at whatever moment, readers see the run before or this one, whole.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fourways_api import RunReport, RuntimeConfig
from fourways_runtime.config import read_config, read_run
from fourways_runtime.io.store.base import PublishedRun
from fourways_runtime.process import run_job

from .limits import RunTally
from .run import BatchRun

if TYPE_CHECKING:
    from fourways_runtime.io.store.runs.record import RunRecord

__all__ = ["BatchRun", "main", "open_run", "read_config", "read_run", "succeeded"]

logger = logging.getLogger("fourways.batch")

COLLECT_EVERY = 100_000
"""Objects made, less those gone again, between two looks for cycles."""


def main() -> int:
    """Work on one batch run as the environment says; return the process's exit code."""
    # Rows are arrays, not objects: collecting often would only look at the libraries again.
    gc.set_threshold(COLLECT_EVERY)
    progress: RunTally | None = None

    def work(config: RuntimeConfig) -> RunReport:
        nonlocal progress
        run = open_run(config, read_run())
        progress = run.progress
        return succeeded(run.execute(), run.notes)

    def completed(report: RunReport) -> RunReport:
        return report if progress is None else _failed(report, progress)

    return run_job(read_config, work, logger, completed)


def open_run(config: RuntimeConfig, name: str) -> BatchRun:
    """Return a run on the engine its deployment names. Raises ConfigError."""
    if config.batch is not None and config.batch.engine == "Ray":
        from .ray_data import RayEngine

        return BatchRun(config, name, RayEngine())
    return BatchRun(config, name)


def succeeded(published: PublishedRun | RunRecord, notes: Sequence[str] = ()) -> RunReport:
    """Return what there is to report of a run that is published."""
    told = f"{published.rows} rows published, {published.rejects} refused"
    return RunReport(
        outcome="Succeeded",
        message="; ".join([told, *notes]),
        rows=published.rows,
        rejects=published.rejects,
        digest=published.digest,
        version=published.version,
    )


def _failed(report: RunReport, progress: RunTally) -> RunReport:
    so_far = {"rows": progress.rows, "rejects": progress.rejects, "digest": progress.digest}
    return report.model_copy(update=so_far)
