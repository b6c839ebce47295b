"""Turns a run whose chunks are all recorded into what readers see.

Owns the last steps, each a repeatable transaction: carry over rows that are still valid, index the
keys and settle those that occur more than once (sealing); move the pointer (publishing); drop what
is no longer needed. The worker that records the last chunk performs them, one worker at a time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from fourways_runtime.errors import StoreUnavailable, WorkloadError
from fourways_runtime.scoring.columns import Reject

from .. import layout
from ..base import PublishedRun
from ..database import Database, Duplicates, quoted, table
from .ledger import RunLedger, taken_over
from .merge import Carried, carry

_log = logging.getLogger(__name__)
_TABLE = re.compile(r"^run_[0-9a-f]{24}")
_MOVE = """
    INSERT INTO @published (namespace, deployment, run_id, moved_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (namespace, deployment) DO UPDATE
    SET run_id = excluded.run_id, moved_at = excluded.moved_at"""
_EXCESS = """
    SELECT id FROM @runs r WHERE namespace = ? AND deployment = ?
    AND state = 'published' AND NOT EXISTS (SELECT 1 FROM @published p WHERE p.run_id = r.id)
    ORDER BY published_at DESC, id DESC LIMIT 1000000 OFFSET ?"""
_FAILED = """
    SELECT r.id, r.name FROM @runs r JOIN @ledgers l ON l.run_id = r.id
    WHERE r.namespace = ? AND r.deployment = ? AND r.state = 'writing' AND l.state = 'failed'
    ORDER BY r.id DESC LIMIT 1000000 OFFSET ?"""
_UNFINISHED = """
    SELECT r.id, r.name FROM @runs r JOIN @ledgers l ON l.run_id = r.id
    WHERE r.namespace = ? AND r.deployment = ? AND r.state = 'writing' AND l.state <> 'failed'"""
_NEEDED = """
    SELECT table_name FROM @runs UNION SELECT own_table FROM @ledgers
    UNION SELECT base_table FROM @ledgers"""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed run, ready to be published."""

    rows: int
    """Total number of predictions."""

    rejects: int
    read: int
    """Number of rows that this run read from the source."""

    carried: int = 0
    removed: int = 0


@contextmanager
def alone(ledger: RunLedger) -> Iterator[bool]:
    """Take the lock of the worker that finishes the run; yield False if another has it."""
    lock = f"seal {ledger.run_id}"
    taken = ledger.data.hold(lock)
    try:
        yield taken
    finally:
        if taken:
            with suppress(StoreUnavailable):  # The lock was released with the connection.
                ledger.data.let_go(lock)


def seal(
    ledger: RunLedger, *, remove: bool = False, repeated: Callable[[], list[Reject]] = list
) -> Sealed:
    """Index the keys; if rows share a key, the last one wins.

    Each earlier row becomes a reject. ``remove`` says whether predictions are removed whose rows
    are gone from the source. If predictions are in a sink, ``repeated`` returns the rows to reject
    there. Only now is the number of rejects final. Raises StoreUnavailable.
    """
    if ledger.failure() is None and _state(ledger) == "open":
        if not ledger.table:
            _settle_elsewhere(ledger, repeated())
        else:
            try:
                with ledger.data.transaction():
                    _settle(ledger, remove=remove, duplicates=0)
            except Duplicates:
                with ledger.data.transaction():
                    _settle(ledger, remove=remove, duplicates=_deduplicate(ledger))
    totals = ledger.totals()
    found = ledger.control.rows(
        "SELECT duplicates, carried, removed FROM @ledgers WHERE run_id = ?", (ledger.run_id,)
    )
    if not found:
        raise taken_over(ledger.run)
    duplicates, carried, removed = found[0]
    return Sealed(
        totals.predictions - duplicates + carried,
        totals.rejects + duplicates,
        totals.rows,
        carried,
        removed,
    )


def _state(ledger: RunLedger) -> str:
    ((state,),) = ledger.data.rows("SELECT state FROM @ledgers WHERE run_id = ?", (ledger.run_id,))
    return str(state)


def _settle(ledger: RunLedger, *, remove: bool, duplicates: int) -> None:
    data = ledger.data
    carried = Carried(0, ledger.table)
    if ledger.base is not None:
        carried = carry(ledger, ledger.base, ledger.totals().predictions, remove=remove)
    key = quoted(ledger.columns[0].identifier)
    data.index(ledger.table, key)
    data.change(
        "UPDATE @ledgers SET state = 'sealed', duplicates = ?, carried = ?, removed = ?, "
        "base_table = ?, base_rows = ?, watermark = ? WHERE run_id = ?",
        (
            duplicates,
            carried.rows,
            carried.removed,
            carried.base_table,
            carried.base_rows,
            _watermark(ledger),
            ledger.run_id,
        ),
    )
    data.change("UPDATE @runs SET table_name = ? WHERE id = ?", (carried.view, ledger.run_id))


def _settle_elsewhere(ledger: RunLedger, rejects: list[Reject]) -> None:
    data = ledger.data
    with data.transaction():
        if rejects:
            data.append_rejects(ledger.run_id, rejects)
        data.change(
            "UPDATE @ledgers SET state = 'sealed', duplicates = ? WHERE run_id = ?",
            (len(rejects), ledger.run_id),
        )


def _watermark(ledger: RunLedger) -> str | None:
    """Return the highest watermark that this run has seen or was started with."""
    found = ledger.control.rows(
        "SELECT DISTINCT watermark FROM @chunks WHERE run_id = ? AND watermark IS NOT NULL",
        (ledger.run_id,),
    )
    seen = [orjson.loads(text) for (text,) in found]
    seen += [ledger.since] if ledger.since is not None else []
    return orjson.dumps(max(seen)).decode() if seen else None


def _deduplicate(ledger: RunLedger) -> int:
    data, name = ledger.data, ledger.columns[0].name
    key, position = quoted(ledger.columns[0].identifier), quoted(layout.POSITION)
    ranked = (
        f"SELECT :rowid AS at, {position} AS position, CAST({key} AS text) AS key, "  # noqa: S608
        f"row_number() OVER (PARTITION BY {key} ORDER BY {position} DESC) AS rank "
        f"FROM {table(ledger.table)}"
    )
    count = data.change(
        f"INSERT INTO @rejects SELECT ?, position, key, ?, ? FROM ({ranked}) x WHERE rank > 1",  # noqa: S608
        (ledger.run_id, name, layout.DUPLICATE),
    )
    data.change(
        f"DELETE FROM {table(ledger.table)} WHERE :rowid IN "  # noqa: S608
        f"(SELECT at FROM ({ranked}) x WHERE rank > 1)"
    )
    return count


def publish(
    ledger: RunLedger, sealed: Sealed, keep: int, forget: Callable[[str], None] = lambda run: None
) -> PublishedRun:
    """Publish a sealed run to readers; keep ``keep`` runs in total.

    ``forget`` is called with the name of each run that is dropped and was never published.

    If the connection breaks before the answer, it is unknown whether the commit took effect: this
    raises StoreUnavailable, and the next attempt finds out. If it did not, the previous run is
    still published.
    """
    run, data = ledger.run, ledger.data
    computed_at = _computed_at(ledger)
    with data.transaction():
        updated = data.change(
            "UPDATE @runs SET state = 'published', published_at = ?, computed_at = ?, rows = ?, "
            "rejects = ? WHERE id = ? AND state = 'writing'",
            (
                data.time(datetime.now(UTC)),
                data.time(computed_at),
                sealed.rows,
                sealed.rejects,
                ledger.run_id,
            ),
        )
        if updated != 1:
            raise taken_over(run)
        if ledger.table:
            move(data, run.namespace, run.deployment, ledger.run_id)
    try:
        prune(ledger, keep, forget)
    except StoreUnavailable as error:
        # Only costs disk space, so the run succeeds; the next run tries again.
        _log.warning("old runs were not dropped: %s", error)
    return PublishedRun(
        run.name, run.version, run.digest, run.contract, computed_at, sealed.rows, sealed.rejects
    )


def move(data: Database, namespace: str, deployment: str, run_id: int) -> None:
    """Move the pointer, to publish or to roll back."""
    data.change(_MOVE, (namespace, deployment, run_id, data.time(datetime.now(UTC))))


def _computed_at(ledger: RunLedger) -> datetime:
    ((at,),) = ledger.data.rows(
        "SELECT coalesce(max(done_at), :now) FROM @chunks WHERE run_id = ?", (ledger.run_id,)
    )
    return datetime.fromtimestamp(float(at), UTC)


def prune(ledger: RunLedger, keep: int, forget: Callable[[str], None]) -> None:
    """Drop runs beyond the latest, abandoned runs, and tables that belong to neither."""
    data = ledger.data
    whose = (ledger.run.namespace, ledger.run.deployment)
    doomed = [run_id for (run_id,) in data.rows(_EXCESS, (*whose, keep - 1))]
    given_up = data.rows(_FAILED, (*whose, keep))
    given_up += [(r, name) for r, name in data.rows(_UNFINISHED, whose) if not ledger.alive(r)]
    for run_id, name in given_up:
        try:
            forget(name)
        except WorkloadError as error:
            # The run and what it left elsewhere stay until the next run drops them.
            _log.warning("what run %s left was not dropped: %s", name, error)
        else:
            doomed.append(run_id)
    for run_id in doomed:
        data.change("DELETE FROM @runs WHERE id = ?", (run_id,))
    data.change(
        "UPDATE @ledgers SET own_table = '' WHERE state = 'failed' AND run_id IN "
        "(SELECT id FROM @runs WHERE namespace = ? AND deployment = ?)",
        whose,
    )
    data.change(
        "UPDATE @runs SET table_name = '' WHERE state = 'writing' AND namespace = ? AND "
        "deployment = ? AND id IN (SELECT run_id FROM @ledgers WHERE state = 'failed')",
        whose,
    )
    drop_orphans(data)
    ledger.alive(ledger.run_id)


def drop_orphans(data: Database) -> None:
    """Drop tables and views that belong to no run. A failure only costs disk space."""
    there = [name for name in data.relations() if _TABLE.match(name)]
    needed = {name for (name,) in data.rows(_NEEDED)}
    for name in there:
        if name not in needed:
            try:
                data.drop(name)
            except StoreUnavailable as error:
                _log.warning("table %s was not dropped: %s", name, error)
