"""The store as batch workers, and people who look after runs, see it (blocking).

Every call may raise StoreUnavailable.
"""

from __future__ import annotations

from fourways_runtime.scoring.columns import Reject

from .. import layout
from ..base import PublishedRun, Run
from ..database import Database
from . import history
from .ledger import Ledger, Settings
from .record import RunDifference, RunProgress, RunRecord

_FIND = f"""SELECT {layout.RUN_COLUMNS} FROM @runs r WHERE r.namespace = ?
    AND r.deployment = ? AND r.name = ? AND r.state = 'published'"""  # noqa: S608
_PUBLISHED = f"""SELECT {layout.RUN_COLUMNS} FROM @published p JOIN @runs r
    ON r.id = p.run_id WHERE p.namespace = ? AND p.deployment = ?"""  # noqa: S608

_UNDER_WAY = """SELECT r.deployment, r.name FROM @runs r JOIN @ledgers l ON l.run_id = r.id
    WHERE r.namespace = ? AND r.state <> 'published' AND l.state IN ('new', 'open')
    ORDER BY r.id"""


class Writer:
    """A store, over either database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def ledger(self, run: Run, settings: Settings, worker: str) -> Ledger:
        """Open a worker's part in a run, on connections of its own."""
        return Ledger(self.database.second(), run, settings, worker)

    def finished(self, namespace: str, deployment: str, run: str) -> PublishedRun | None:
        """Return this very run if it was published, whether or not readers still see it."""
        return self._one(_FIND, (namespace, deployment, run))

    def published(self, namespace: str, deployment: str) -> PublishedRun | None:
        """Return the run readers see now."""
        return self._one(_PUBLISHED, (namespace, deployment))

    def runs(self, namespace: str, deployment: str) -> list[RunRecord]:
        """List a deployment's runs, the latest first."""
        return history.runs(self.database, namespace, deployment)

    def under_way(self, namespace: str) -> list[tuple[str, str]]:
        """Return the runs of a namespace that are being written, as deployment and name."""
        found = self.database.rows(_UNDER_WAY, (namespace,))
        return [(deployment, name) for deployment, name in found]

    def difference(self, namespace: str, deployment: str, before: str, after: str) -> RunDifference:
        """Compare two runs by entity key. Raises ConfigError where one has no predictions."""
        return history.difference(self.database, namespace, deployment, before, after)

    def rollback(self, namespace: str, deployment: str, run: str | None = None) -> str:
        """Let readers see an earlier run, the last one before unless named; return its name.

        Raises ConfigError where there is none.
        """
        return history.rollback(self.database, namespace, deployment, run)

    def rejects(self, namespace: str, deployment: str, run: str, limit: int = 100) -> list[Reject]:
        """Return the rows a run has refused, by position. Raises ConfigError."""
        return history.rejects(self.database, namespace, deployment, run, limit)

    def progress(self, namespace: str, deployment: str, run: str) -> RunProgress:
        """Return how far a run is. Raises ConfigError where there is none of that name."""
        return history.progress(self.database, namespace, deployment, run)

    def _one(self, query: str, values: tuple[str, ...]) -> PublishedRun | None:
        found = self.database.rows(query, values)
        return layout.published_run(found[0]) if found else None

    def close(self) -> None:
        """Let go of the connection."""
        self.database.close()
