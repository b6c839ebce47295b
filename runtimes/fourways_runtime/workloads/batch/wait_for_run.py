"""The Job's part in a run on a Ray cluster: it waits and reports how the run ended.

A run is a Job whatever its engine: it is scheduled, retried, timed out, listed and reported as one.
Under Ray, the Job's pod scores nothing and does not know the cluster: it reads the state of the run
from the store. It therefore does not depend on what Ray or its operator report, and if no Ray
worker joins the run, or all of them are gone, it ends like a lost worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from fourways_api import RunReport, RuntimeConfig
from fourways_runtime.config import read_config, read_run
from fourways_runtime.errors import ConfigError, StoreUnavailable, Unavailable, WorkloadError
from fourways_runtime.io.store.runs.plan import Failure
from fourways_runtime.process import run_job
from fourways_runtime.retry import Outage

from . import succeeded
from .claims import as_error

if TYPE_CHECKING:
    from fourways_runtime.io.store.runs.record import RunRecord
    from fourways_runtime.io.store.runs.store import RunStore

logger = logging.getLogger("fourways.batch")

LOOK_SECONDS = 2.0


def main() -> int:
    """Wait for the run named in the environment; return the process's exit code."""
    return run_job(read_config, _work, logger)


def _work(config: RuntimeConfig) -> RunReport:
    from fourways_runtime.io.store import open_run_store, owners_of, read_uri

    return wait_for_run(
        lambda: open_run_store(read_uri(config.paths.store_uri_file), owners_of(config)),
        config,
        read_run(),
    )


def wait_for_run(
    open_store: Callable[[], RunStore],
    config: RuntimeConfig,
    run: str,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RunReport:
    """Wait until a run is published; return its report.

    This is no retry of one call, so it only uses the patience of :mod:`fourways_runtime.retry`: the
    outage lasts while no worker is at the run, also while the store says nothing about it.

    Raises:
        WorkloadError: The run failed; this is its recorded error.
        Unavailable: No worker has worked on the run for ``startingDeadlineSeconds``.

    """
    if config.batch is None:
        raise ConfigError("the configuration has no batch settings")
    patience = float(config.batch.starting_deadline_seconds)
    outage = Outage(patience, now)
    looked, earlier = False, None
    last: WorkloadError | None = None
    with ExitStack() as opened:
        store: RunStore | None = None
        while True:
            worked_on = False
            try:
                if store is None:
                    store = open_store()
                    opened.callback(store.close)
                found, last = _look(store, config, run), None
                if found is not None and found.state == "published":
                    drift = store.drift(config.namespace, config.name, run)
                    quality = store.quality(config.namespace, config.name)
                    return succeeded(found, drift=drift, quality=quality)
                failed = found if found is not None and found.state == "failed" else None
                if not looked:
                    # A resumed run has failed before: that failure counts only if no worker comes.
                    looked, earlier = True, failed and failed.started_at
                if failed is not None:
                    last = as_error(Failure(failed.reason, failed.message, 0))
                elif worked_on := _is_worked_on(store, config, run):
                    outage.ended()
            except StoreUnavailable as error:
                failed, last, store = None, error, None
                opened.close()
            if last is not None and failed is not None and failed.started_at != earlier:
                raise last
            if not worked_on:
                outage.failed(
                    last
                    or Unavailable(
                        f"no worker of the Ray cluster has worked on the run for {patience:g} s: "
                        "see the events of its RayJob (kubectl get events)"
                    )
                )
            sleep(LOOK_SECONDS)


def _look(store: RunStore, config: RuntimeConfig, run: str) -> RunRecord | None:
    runs = store.runs(config.namespace, config.name)
    return next((record for record in runs if record.name == run), None)


def _is_worked_on(store: RunStore, config: RuntimeConfig, run: str) -> bool:
    try:
        workers = store.progress(config.namespace, config.name, run).workers
    except ConfigError:
        return False  # the run does not exist yet, or no longer
    return any(worker.alive for worker in workers)
