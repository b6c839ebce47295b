"""The rollback shell: it serves an earlier published run again.

A rollback is a separate Job, so that exactly those who may create Jobs in the namespace may roll
back. The Job has the store's address and moves the pointer that readers follow, in one transaction.
No prediction is computed or deleted. The run is always named explicitly, so that repeating a
rollback is harmless.
"""

from __future__ import annotations

import logging

from fourways_api import RunReport, RuntimeConfig
from fourways_runtime.config import read_config, read_run
from fourways_runtime.io.store.runs.store import RunStore
from fourways_runtime.process import run_job

logger = logging.getLogger("fourways.rollback")


def main() -> int:
    """Roll back to the run named in the environment; return the process's exit code."""
    return run_job(read_config, _work, logger)


def _work(config: RuntimeConfig) -> RunReport:
    from fourways_runtime.io.store import open_run_store, owners_of, read_uri

    store = open_run_store(read_uri(config.paths.store_uri_file), owners_of(config))
    try:
        return roll_back(store, config, read_run())
    finally:
        store.close()


def roll_back(store: RunStore, config: RuntimeConfig, run: str) -> RunReport:
    """Serve an earlier run again; return the report.

    Raises:
        ConfigError: There is no such run, or its predictions are no longer kept.
        StoreUnavailable: The store does not answer. Whether or not the rollback took effect, it is
            safe to repeat.

    """
    name = store.rollback(config.namespace, config.name, run)
    logger.info("rolled back", extra={"deployment": config.name, "run": name})
    seen = store.published(config.namespace, config.name)
    # Another run may have been published in the meantime; its figures must not be reported here.
    ours = seen if seen is not None and seen.name == name else None
    return RunReport(
        outcome="Succeeded",
        message=f"predictions come from run {name} again",
        run=name,
        rows=ours.rows if ours else 0,
        rejects=ours.rejects if ours else 0,
        version=ours.version if ours else None,
        digest=ours.digest if ours else None,
    )
