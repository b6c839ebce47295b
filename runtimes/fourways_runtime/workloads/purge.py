"""The purge shell: it lists or removes what the store holds of deployments that are gone.

A purge is a Job, so that exactly those who may create Jobs in the namespace may purge. The operator
plans one for a deployment with ``deletionPolicy: Delete`` and starts it once that is deleted. The
uids are always named explicitly, so repeating a purge is harmless, and one that comes late cannot
touch the data of a deployment made since.
"""

from __future__ import annotations

import logging

from fourways_api import PurgeConfig, RunReport, StoredData
from fourways_runtime.config import read_purge_config
from fourways_runtime.io.store.database import Database
from fourways_runtime.process import run_job

logger = logging.getLogger("fourways.purge")

MAX_LISTED = 16
"""Maximum number of uids in a report: a termination message has at most 4 KiB."""


def main() -> int:
    """List or remove; return the process's exit code."""
    return run_job(read_purge_config, _work, logger)


def _work(config: PurgeConfig) -> RunReport:
    from fourways_runtime.io.store import open_database, read_uri

    database = open_database(read_uri(config.paths.store_uri_file))
    try:
        return purge(database, config)
    finally:
        database.close()


def purge(database: Database, config: PurgeConfig) -> RunReport:
    """Remove the data of the configured uids, or list what there is; return the report.

    Raises:
        StoreUnavailable: The store does not answer. It is safe to repeat.

    """
    from fourways_runtime.io.store import purging

    namespace, name = config.namespace, config.name
    there = purging.listed(database, namespace, name)
    doomed = there
    if config.uids:
        doomed = [data for data in there if data.uid in config.uids]
        purging.purge(database, namespace, name, config.uids)
        for data in doomed:
            logger.info("purged", extra={"deployment": name, "uid": data.uid, "runs": data.runs})
    return RunReport(
        outcome="Succeeded",
        message=f"{'removed' if config.uids else 'found'} the data of {len(doomed)} uids",
        stored=tuple(
            StoredData(
                uid=data.uid,
                since=data.since,
                runs=data.runs,
                rows=data.rows,
                live=data.live,
                dead_letters=data.dead_letters,
            )
            for data in doomed[:MAX_LISTED]
        ),
    )
