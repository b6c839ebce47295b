"""The runs of a prediction store: listing, progress, comparison and rollback.

Batch workers open it to write, commands and the gateway to read. The ledger and publishing write
what is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from fourways_api import DriftStatus, QualityStatus
from fourways_runtime.errors import ConfigError
from fourways_runtime.scoring.columns import Reject

from .. import layout, recent
from ..base import PublishedRun, Run
from ..database import Database, TableMissing, quoted, table
from ..owners import NO_OWNERS, Owners, claim, key_of
from ..recent import RecentAnswers, RecentDeadLetter
from ..reports import WorkerReport, reports_of
from .histograms import MOST, histogram
from .ledger import RunLedger
from .plan import RunSettings
from .publish import move
from .record import RunDifference, RunProgress, RunRecord, Shift, WorkerProgress

_FIND = f"""SELECT {layout.RUN_COLUMNS} FROM @runs r WHERE r.namespace = ?
    AND r.deployment = ? AND r.name = ? AND r.state = 'published'"""  # noqa: S608
_PUBLISHED = f"""SELECT {layout.RUN_COLUMNS} FROM @published p JOIN @runs r
    ON r.id = p.run_id WHERE p.namespace = ? AND p.deployment = ?"""  # noqa: S608

_UNDER_WAY = """SELECT r.deployment, r.name FROM @runs r JOIN @ledgers l ON l.run_id = r.id
    WHERE r.namespace = ? AND r.state <> 'published' AND l.state IN ('new', 'open')
    ORDER BY r.id"""
_RUNS = f"""
    SELECT r.name, r.state, l.state, r.version, r.digest, r.started_at, r.published_at, r.rows,
    r.rejects, p.run_id IS NOT NULL, coalesce(l.kind, 'full'), coalesce(l.carried, 0),
    coalesce(l.reason, ''), coalesce(l.message, ''), r.id, d.document, q.document
    FROM @runs r LEFT JOIN @ledgers l ON l.run_id = r.id LEFT JOIN @published p ON p.run_id = r.id
    LEFT JOIN @profiles d ON d.run_id = r.id AND d.chunk = {layout.DRIFT_ROW}
    LEFT JOIN @profiles q ON q.run_id = r.id AND q.chunk = {layout.QUALITY_ROW}
    WHERE r.namespace = ? AND r.deployment = ? ORDER BY r.id DESC"""  # noqa: S608
_DRIFT = f"""
    SELECT d.document FROM @profiles d JOIN @runs r ON r.id = d.run_id
    AND d.chunk = {layout.DRIFT_ROW}
    WHERE r.namespace = ? AND r.deployment = ? AND r.name = ?"""  # noqa: S608
_QUALITY = f"""
    SELECT d.document FROM @profiles d JOIN @runs r ON r.id = d.run_id
    AND d.chunk = {layout.QUALITY_ROW}
    WHERE r.namespace = ? AND r.deployment = ?
    ORDER BY r.published_at DESC, r.id DESC LIMIT 1"""  # noqa: S608
_RUN = """
    SELECT r.id, r.table_name, r.contract, r.state FROM @runs r
    WHERE r.namespace = ? AND r.deployment = ? AND r.name = ?"""
_BEFORE = """
    SELECT r.id, r.name FROM @runs r WHERE r.namespace = ? AND r.deployment = ?
    AND r.state = 'published' AND r.table_name <> '' AND r.published_at < (
        SELECT c.published_at FROM @published p JOIN @runs c ON c.id = p.run_id
        WHERE p.namespace = r.namespace AND p.deployment = r.deployment)
    ORDER BY r.published_at DESC LIMIT 1"""
_WORKERS = """
    SELECT w.name, w.owner, coalesce(sum(c.rows), 0), coalesce(sum(c.rejects), 0),
    min(c.claimed_at), max(c.done_at),
    sum(CASE WHEN c.state = 'claimed' THEN 1 ELSE 0 END)
    FROM @workers w LEFT JOIN @chunks c ON c.run_id = w.run_id AND c.owner = w.owner
    WHERE w.run_id = ? GROUP BY w.name, w.owner, w.started_at ORDER BY w.started_at, w.owner"""


class RunStore:
    """The runs of a prediction store, in either database (blocking).

    Every call may raise StoreUnavailable, and ConfigError for a run that does not exist.
    """

    def __init__(
        self, database: Database, owners: Owners = NO_OWNERS, *, read_only: bool = False
    ) -> None:
        """``read_only``: nothing is created or changed; a store without tables has no runs.

        ``owners``: only the runs of these uids are seen and written.
        """
        self.database = database
        self._owners = owners
        self._read_only = read_only

    def ledger(self, run: Run, settings: RunSettings, worker: str) -> RunLedger:
        """Open a worker's part in a run, on its own connections."""
        _, key = self._whose(run.namespace, run.deployment)
        return RunLedger(self.database.second(), replace(run, deployment=key), settings, worker)

    def finished(self, namespace: str, deployment: str, run: str) -> PublishedRun | None:
        """Return the run if it was published, whether or not readers still see it."""
        return self._one(_FIND, (*self._whose(namespace, deployment), run))

    def drift(self, namespace: str, deployment: str, run: str) -> DriftStatus | None:
        """Return how a run's records differ from those of the training; None if not compared."""
        found = self._rows(_DRIFT, (*self._whose(namespace, deployment), run))
        return DriftStatus.model_validate_json(found[0][0]) if found else None

    def quality(self, namespace: str, deployment: str) -> QualityStatus | None:
        """Return how well predictions agree with labels, of the latest run that has enough."""
        found = self._rows(_QUALITY, self._whose(namespace, deployment))
        return QualityStatus.model_validate_json(found[0][0]) if found else None

    def published(self, namespace: str, deployment: str) -> PublishedRun | None:
        """Return the run that readers see now."""
        return self._one(_PUBLISHED, self._whose(namespace, deployment))

    def under_way(self, namespace: str) -> list[tuple[str, str]]:
        """Return the unfinished runs of a namespace, as deployment and name."""
        found = [(str(key), str(run)) for key, run in self._rows(_UNDER_WAY, (namespace,))]
        if namespace != self._owners.namespace or not found:
            return found
        names = {self._whose(namespace, name)[1]: name for name in self._owners.uids}
        return [(names[key], run) for key, run in found if key in names]

    def runs(self, namespace: str, deployment: str) -> list[RunRecord]:
        """List a deployment's runs, latest first."""
        found = []
        for row in self._rows(_RUNS, self._whose(namespace, deployment)):
            name, state, ledger, version, digest, started, published, rows, rejects, current = row[
                :10
            ]
            kind, carried, reason, message, run_id, drift, quality = row[10:]
            stage = "published" if state == "published" else _STAGES.get(ledger, "scoring")
            if stage != "published":
                ((rows, rejects),) = self._rows(
                    "SELECT coalesce(sum(predictions), 0), coalesce(sum(rejects), 0) FROM @chunks "
                    "WHERE run_id = ?",
                    (run_id,),
                )
            found.append(
                RunRecord(
                    name,
                    stage,
                    version,
                    digest,
                    _time(started) or datetime.fromtimestamp(0, UTC),
                    _time(published),
                    int(rows),
                    int(rejects),
                    bool(current),
                    kind,
                    carried,
                    reason,
                    message,
                    None if drift is None else orjson.loads(drift),
                    None if quality is None else orjson.loads(quality),
                )
            )
        return found

    def progress(self, namespace: str, deployment: str, run: str) -> RunProgress:
        """Return the progress of a run. Raises ConfigError."""
        run_id, _, _, state = self._run(namespace, deployment, run)
        ledger = self._rows("SELECT state, total_rows FROM @ledgers WHERE run_id = ?", (run_id,))
        stage, total = ledger[0] if ledger else ("open", None)
        ((chunks, done, rows, rejected, begun, now),) = self._rows(
            "SELECT count(*), sum(CASE WHEN state = 'done' THEN 1 ELSE 0 END), "
            "coalesce(sum(rows), 0), coalesce(sum(rejects), 0), min(claimed_at), "
            "CASE WHEN sum(CASE WHEN state = 'done' THEN 0 ELSE 1 END) > 0 THEN :now "
            "ELSE max(done_at) END FROM @chunks WHERE run_id = ?",
            (run_id,),
        )
        workers = tuple(
            WorkerProgress(
                name,
                int(r),
                int(j),
                _rate(r, first, last),
                int(claimed or 0),
                self.database.held(f"worker {owner}"),
            )
            for name, owner, r, j, first, last, claimed in self._rows(_WORKERS, (run_id,))
        )
        rate = _rate(rows, begun, now)
        left = None if total is None or not rate else max(0.0, (int(total) - int(rows)) / rate)
        stage = "published" if state == "published" else _STAGES.get(stage, "scoring")
        return RunProgress(
            stage, int(rows), total, int(rejected), int(chunks), int(done or 0), rate, left, workers
        )

    def difference(self, namespace: str, deployment: str, before: str, after: str) -> RunDifference:
        """Compare two runs by entity key. Raises ConfigError if one has no predictions."""
        views, outputs = [], []
        key = ""
        for name in (before, after):
            _, view, contract, _ = self._run(namespace, deployment, name)
            if not view:
                raise ConfigError(f"run {name} of {deployment} has no predictions in the store")
            first, *columns = layout.columns(layout.load_contract(contract))
            views.append(table(view))
            outputs.append({column.name: column for column in columns})
            key = quoted(first.identifier)
        both = [n for n, c in outputs[0].items() if outputs[1].get(n) == c]
        joined = f"FROM {views[0]} a JOIN {views[1]} b ON a.{key} = b.{key}"
        names = [quoted(outputs[0][name].identifier) for name in both]
        differs = " OR ".join(f"a.{name} <> b.{name}" for name in names) or "1 = 0"
        ((common, changed),) = self._rows(
            f"SELECT count(*), coalesce(sum(CASE WHEN {differs} THEN 1 ELSE 0 END), 0) {joined}"
        )
        counts = [self._rows(f"SELECT count(*) FROM {view}")[0][0] for view in views]  # noqa: S608
        shifts: dict[str, Shift] = {}
        for name in both:
            column = outputs[0][name]
            if not column.shape and column.kind not in ("string", "bool"):
                mean = f"avg(CAST({quoted(column.identifier)} AS double precision))"
                means = [self._rows(f"SELECT {mean} FROM {view}")[0][0] for view in views]  # noqa: S608
                bins = None
                if len(shifts) < MOST:
                    bins = histogram(self._rows, views, quoted(column.identifier))
                shifts[name] = Shift(means[0], means[1], bins)
        return RunDifference(counts[0] - common, counts[1] - common, common, int(changed), shifts)

    def worker_reports(self, namespace: str, deployment: str) -> list[WorkerReport]:
        """Return what a stream's workers say of themselves now."""
        try:
            return reports_of(self.database, *self._whose(namespace, deployment))
        except TableMissing:
            return []

    def recent_answers(
        self, namespace: str, deployment: str, mode: str | None, limit: int
    ) -> RecentAnswers:
        """Return the last predictions of a deployment of a mode; None stands for batch."""
        read = _RECENT.get(mode or "", recent.of_run)
        try:
            return read(self.database, *self._whose(namespace, deployment), limit)
        except TableMissing:
            return RecentAnswers([])

    def dead_letters(
        self, namespace: str, deployment: str, limit: int
    ) -> list[RecentDeadLetter] | None:
        """Return the newest dead letters of a stream; None if finding them takes too long."""
        try:
            return recent.dead_letters(self.database, *self._whose(namespace, deployment), limit)
        except TableMissing:
            return []

    def rejects(self, namespace: str, deployment: str, run: str, limit: int = 100) -> list[Reject]:
        """Return a run's rejects, ordered by position. Raises ConfigError."""
        run_id = self._run(namespace, deployment, run)[0]
        found = self._rows(
            "SELECT position, CAST(key AS text), field, reason FROM @rejects WHERE run_id = ? "
            "ORDER BY position LIMIT ?",
            (run_id, limit),
        )
        return [Reject(*row) for row in found]

    def rollback(self, namespace: str, deployment: str, run: str | None = None) -> str:
        """Publish an earlier run again, by default the previous one; return its name.

        Raises:
            ConfigError: there is no such run, or it was never published.

        """
        whose = self._whose(namespace, deployment)
        with self.database.transaction("\0".join(whose)):
            if run is None:
                found = self._rows(_BEFORE, whose)
                if not found:
                    raise ConfigError(f"the store has no earlier run of {deployment}")
                run_id, run = found[0]
            else:
                run_id, view, _, state = self._run(namespace, deployment, run)
                if state != "published" or not view:
                    raise ConfigError(f"run {run} of {deployment} was never published in the store")
            move(self.database, *whose, run_id)
            return str(run)

    def _run(self, namespace: str, deployment: str, name: str) -> tuple[Any, ...]:
        found = self._rows(_RUN, (*self._whose(namespace, deployment), name))
        if not found:
            raise ConfigError(f"the store has no run {name} of {deployment}")
        return found[0]

    def _whose(self, namespace: str, deployment: str) -> tuple[str, str]:
        """Return namespace and key of a deployment's rows; a key without rows if it has none."""
        uid = self._owners.uid(namespace, deployment)
        if not uid:
            return namespace, "" if uid is None else deployment
        if not self._read_only:
            return namespace, claim(self.database, namespace, deployment, uid)
        try:
            return namespace, key_of(self.database, namespace, deployment, uid) or ""
        except TableMissing:
            return namespace, ""

    def _one(self, query: str, values: tuple[str, ...]) -> PublishedRun | None:
        found = self._rows(query, values)
        return layout.published_run(found[0]) if found else None

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self.database.rows(query, values)
        except TableMissing:
            if self._read_only:
                return []
            raise

    def close(self) -> None:
        """Close the connection."""
        self.database.close()


_RECENT = {"streaming": recent.of_stream, "realtime": recent.recorded}
_STAGES = {"sealed": "sealed", "failed": "failed"}


def _time(stored: Any) -> datetime | None:
    if isinstance(stored, str):
        stored = datetime.fromisoformat(stored)
    return None if stored is None else stored.astimezone(UTC)


def _rate(rows: Any, begun: float | None, ended: float | None) -> float:
    if begun is None or ended is None or ended <= begun:
        return 0.0
    return round(float(rows) / (ended - begun), 1)
