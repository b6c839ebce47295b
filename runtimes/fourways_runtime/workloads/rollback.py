"""The shell that takes a published run back: answers come from an earlier one again.

A Job of its own, so that whoever may make Jobs in the namespace may do it, and nobody else: it has
the store's address, and moves the pointer that readers follow, in one transaction. No prediction is
made or dropped. The run is always named, so that doing it twice does no harm.
"""

from __future__ import annotations

import logging

from fourways_api import RunReport, RuntimeConfig
from fourways_runtime.config import read_config, read_run
from fourways_runtime.io.store.runs.store import RunStore
from fourways_runtime.process import run_job

logger = logging.getLogger("fourways.rollback")


def main() -> int:
    """Roll back as the environment says; return the process's exit code."""
    return run_job(read_config, _work, logger)


def _work(config: RuntimeConfig) -> RunReport:
    from fourways_runtime.io.store import open_run_store, read_uri

    store = open_run_store(read_uri(config.paths.store_uri_file))
    try:
        return roll_back(store, config, read_run())
    finally:
        store.close()


def roll_back(store: RunStore, config: RuntimeConfig, run: str) -> RunReport:
    """Let readers see an earlier run; return what there is to report.

    Raises:
        ConfigError: there is no such run, or its predictions are not kept any more.
        StoreUnavailable: the store does not answer; done or not, the same again does no harm.

    """
    name = store.rollback(config.namespace, config.name, run)
    logger.info("rolled back", extra={"deployment": config.name, "run": name})
    seen = store.published(config.namespace, config.name)
    # Another run may have been published since: then its figures are not this one's.
    ours = seen if seen is not None and seen.name == name else None
    return RunReport(
        outcome="Succeeded",
        message=f"answers come from run {name} again",
        run=name,
        rows=ours.rows if ours else 0,
        rejects=ours.rejects if ours else 0,
        version=ours.version if ours else None,
        digest=ours.digest if ours else None,
    )
