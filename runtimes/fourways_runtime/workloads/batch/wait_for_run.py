"""The Job's part in a run that a Ray cluster carries out: it waits, and says how the run ended.

A run is a Job whatever its engine: scheduled, retried, timed out, listed and told of as such. Under
Ray its pod scores nothing and knows no cluster: it reads in the store what the run has come to. So
it does not depend on what Ray or its operator say of themselves, and where none of Ray's workers
comes to the run, or all have gone, it ends as a worker that was lost.
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
from fourways_runtime.io.store.runs.ledger import Failure
from fourways_runtime.process import run_job

from . import succeeded
from .claims import as_error

if TYPE_CHECKING:
    from fourways_runtime.io.store.runs.record import RunRecord
    from fourways_runtime.io.store.runs.store import RunStore

logger = logging.getLogger("fourways.batch")

LOOK_SECONDS = 2.0


def main() -> int:
    """Wait for the run as the environment says; return the process's exit code."""
    return run_job(read_config, _work, logger)


def _work(config: RuntimeConfig) -> RunReport:
    from fourways_runtime.io.store import open_run_store, read_uri

    return wait_for_run(
        lambda: open_run_store(read_uri(config.paths.store_uri_file)), config, read_run()
    )


def wait_for_run(
    open_store: Callable[[], RunStore],
    config: RuntimeConfig,
    run: str,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RunReport:
    """Wait until a run is published; return what there is to report.

    Raises:
        WorkloadError: what the run was given up for.
        Unavailable: nobody has worked on it for as long as a run may take to start.

    """
    if config.batch is None:
        raise ConfigError("the configuration has no batch settings")
    patience = float(config.batch.starting_deadline_seconds)
    heard = now()
    looked, earlier = False, None
    last: WorkloadError | None = None
    with ExitStack() as opened:
        store: RunStore | None = None
        while True:
            try:
                if store is None:
                    store = open_store()
                    opened.callback(store.close)
                found, last = _look(store, config, run), None
                if found is not None and found.state == "published":
                    return succeeded(found)
                failed = found if found is not None and found.state == "failed" else None
                if not looked:
                    # A run that is gone on with has failed before: no news, unless nobody comes.
                    looked, earlier = True, failed and failed.started_at
                if failed is not None:
                    last = as_error(Failure(failed.reason, failed.message, 0))
                elif _is_worked_on(store, config, run):
                    heard = now()
            except StoreUnavailable as error:
                failed, last, store = None, error, None
                opened.close()
            if last is not None and failed is not None and failed.started_at != earlier:
                raise last
            if now() - heard > patience:
                raise last or Unavailable(
                    f"no worker of the Ray cluster was at the run for {patience:g} s: "
                    "what do the events of its RayJob say? (kubectl get events)"
                )
            sleep(LOOK_SECONDS)


def _look(store: RunStore, config: RuntimeConfig, run: str) -> RunRecord | None:
    runs = store.runs(config.namespace, config.name)
    return next((record for record in runs if record.name == run), None)


def _is_worked_on(store: RunStore, config: RuntimeConfig, run: str) -> bool:
    try:
        workers = store.progress(config.namespace, config.name, run).workers
    except ConfigError:
        return False  # there is no such run yet, or no more
    return any(worker.alive for worker in workers)
