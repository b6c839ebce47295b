"""What the store holds of the deployments of a name, by uid, and how it is removed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from fourways_runtime.errors import StoreUnavailable

from .database import Database, TableMissing, quoted
from .owners import key_of
from .runs.publish import drop_orphans

_log = logging.getLogger(__name__)

_OWNERS = """
    SELECT uid, key, CAST(claimed_at AS text) FROM @owners
    WHERE namespace = ? AND deployment = ? AND key IS NOT NULL ORDER BY claimed_at, uid"""
_UNCLAIMED = """
    SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM @owners WHERE namespace = ? AND key = ?)
    AND (EXISTS (SELECT 1 FROM @runs WHERE namespace = ? AND deployment = ?)
    OR EXISTS (SELECT 1 FROM @streams WHERE namespace = ? AND deployment = ?))"""
_PURGED = """
    INSERT INTO @owners (namespace, deployment, uid, key, purged_at) VALUES (?, ?, ?, NULL, ?)
    ON CONFLICT (namespace, deployment, uid) DO UPDATE
    SET key = NULL, purged_at = excluded.purged_at"""
_OF_KEY = (
    "published",
    "runs",
    "positions",
    "dead_letters",
    "answers",
    "past_predictions",
    "worker_reports",
    "streams",
)


@dataclass(frozen=True, slots=True)
class OwnedData:
    """What the store holds of one uid."""

    uid: str
    """Empty for rows of a version that knew no uids."""

    since: str
    """When the uid was first seen; empty if it never was."""

    runs: int
    rows: int
    """Predictions of its published runs that are kept."""

    live: int
    """Predictions of its stream."""

    dead_letters: int


def listed(database: Database, namespace: str, deployment: str) -> list[OwnedData]:
    """Return what the store holds under a deployment's name, by uid, oldest first."""
    owners = [
        (str(u), str(k), str(t)) for u, k, t in database.rows(_OWNERS, (namespace, deployment))
    ]
    if database.rows(_UNCLAIMED, (namespace, deployment) * 3):
        owners.insert(0, ("", deployment, ""))
    return [_data(database, namespace, *owner) for owner in owners]


def _data(database: Database, namespace: str, uid: str, key: str, since: str) -> OwnedData:
    whose = (namespace, key)
    ((runs, rows),) = database.rows(
        "SELECT count(*), coalesce(sum(CASE WHEN state = 'published' THEN rows ELSE 0 END), 0) "
        "FROM @runs WHERE namespace = ? AND deployment = ?",
        whose,
    )
    ((letters,),) = database.rows(
        "SELECT count(*) FROM @dead_letters WHERE namespace = ? AND deployment = ?", whose
    )
    live = 0
    for name in _live_tables(database, whose):
        try:
            ((count,),) = database.rows(f"SELECT count(*) FROM @{quoted(name)}")  # noqa: S608
        except TableMissing:
            continue
        live += int(count)
    return OwnedData(uid, since, int(runs), int(rows), live, int(letters))


def purge(database: Database, namespace: str, deployment: str, uids: Iterable[str]) -> None:
    """Delete everything that the store holds of these uids of a deployment; safe to repeat.

    The uid of rows that no uid has claimed is empty. Tables that a reader holds for long stay until
    the next run or purge drops them. Raises StoreUnavailable.
    """
    for uid in uids:
        with database.transaction("\0".join(("owner", namespace, deployment))):
            key = key_of(database, namespace, deployment, uid) if uid else deployment
            tables: list[str] = []
            if key is not None:
                tables = _live_tables(database, (namespace, key))
                for name in _OF_KEY:
                    database.change(
                        f"DELETE FROM @{name} WHERE namespace = ? AND deployment = ?",  # noqa: S608
                        (namespace, key),
                    )
            if uid:
                now = database.time(datetime.now(UTC))
                database.change(_PURGED, (namespace, deployment, uid, now))
        drop_orphans(database)
        for name in tables:
            try:
                database.drop(name)
            except StoreUnavailable as error:
                _log.warning("table %s was not dropped: %s", name, error)


def _live_tables(database: Database, whose: tuple[str, str]) -> list[str]:
    found = database.rows(
        "SELECT table_name FROM @streams WHERE namespace = ? AND deployment = ?", whose
    )
    return [str(name) for (name,) in found]
