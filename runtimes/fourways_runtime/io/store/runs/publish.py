"""From a run whose chunks are all recorded to what readers see.

Owns the last steps, each a transaction that may be done again: take over what still holds, index
the keys and settle the ones that occur more than once (sealing); move the pointer (publishing);
drop what nobody needs. Whoever records the last chunk takes them, one worker at a time.
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
    """A run as it will be published."""

    rows: int
    """Predictions in all."""

    rejects: int
    read: int
    """Rows read from the source by this run."""

    carried: int = 0
    removed: int = 0


@contextmanager
def alone(ledger: RunLedger) -> Iterator[bool]:
    """Be the one worker that ends the run; False where another is."""
    lock = f"seal {ledger.run_id}"
    taken = ledger.data.hold(lock)
    try:
        yield taken
    finally:
        if taken:
            with suppress(StoreUnavailable):  # The lock went with the connection.
                ledger.data.let_go(lock)


def seal(
    ledger: RunLedger, *, remove: bool = False, repeated: Callable[[], list[Reject]] = list
) -> Sealed:
    """Index the keys; of those that occur more than once the row furthest down stays.

    Each row before is a reject. ``remove`` says whether predictions whose rows are gone from the
    source go too. Where predictions are elsewhere, ``repeated`` tells which rows give way there.
    Only now is the number of rejects final. Raises StoreUnavailable.
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
    """Return the highest watermark this run has seen, or was begun with."""
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
    """Make a sealed run what readers see; keep ``keep`` runs in all.

    ``forget`` is told the name of each run that is dropped and was never published.

    Where the connection breaks before the answer, nobody knows which side of the commit it broke
    on: raises StoreUnavailable, and the next try finds out. The run before stays published then.
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
        # It costs room, not the run: the next one tries again.
        _log.warning("old runs were not dropped: %s", error)
    return PublishedRun(
        run.name, run.version, run.digest, run.contract, computed_at, sealed.rows, sealed.rejects
    )


def move(data: Database, namespace: str, deployment: str, run_id: int) -> None:
    """Move the pointer: this is publishing, and rolling back."""
    data.change(_MOVE, (namespace, deployment, run_id, data.time(datetime.now(UTC))))


def _computed_at(ledger: RunLedger) -> datetime:
    ((at,),) = ledger.data.rows(
        "SELECT coalesce(max(done_at), :now) FROM @chunks WHERE run_id = ?", (ledger.run_id,)
    )
    return datetime.fromtimestamp(float(at), UTC)


def prune(ledger: RunLedger, keep: int, forget: Callable[[str], None]) -> None:
    """Drop runs beyond the latest, those that nobody will end, and the tables of neither."""
    data = ledger.data
    whose = (ledger.run.namespace, ledger.run.deployment)
    doomed = [run_id for (run_id,) in data.rows(_EXCESS, (*whose, keep - 1))]
    given_up = data.rows(_FAILED, (*whose, keep))
    given_up += [(r, name) for r, name in data.rows(_UNFINISHED, whose) if not ledger.alive(r)]
    for run_id, name in given_up:
        try:
            forget(name)
        except WorkloadError as error:
            # It stays to be dropped by the next run, and what it left with it.
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
    """Drop the tables and views that belong to no run. A failure costs room alone."""
    there = [name for name in data.relations() if _TABLE.match(name)]
    needed = {name for (name,) in data.rows(_NEEDED)}
    for name in there:
        if name not in needed:
            try:
                data.drop(name)
            except StoreUnavailable as error:
                _log.warning("table %s was not dropped: %s", name, error)
