"""What an incremental run carries over from the previous run, inside the database.

Owns which earlier predictions are still valid: those whose keys were neither scored again, nor
rejected this time, nor removed from the source. If the database reads a view as fast as a table,
nothing is copied while changes are few: readers see the new rows layered over the old table. Once
the changes are many, everything is copied into one table again, so there are never more than two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fourways_runtime.scoring.columns import Array

from .. import layout
from ..database import Database, quoted, table
from .ledger import RunLedger
from .plan import Base

LAYERED_SHARE = 0.1
"""Maximum size of the layered rows as a share of the table beneath; above it, all are copied."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What was carried over: the number of rows, and what readers use from now on."""

    rows: int
    view: str
    base_table: str = ""
    base_rows: int = 0
    removed: int = 0


def carry(ledger: RunLedger, base: Base, scored: int, *, remove: bool) -> Carried:
    """Carry over the valid rows of the published run. Called in a transaction, before indexing.

    ``scored`` is the number of rows that this run has scored; ``remove`` says whether rows that are
    gone from the source are removed.
    """
    data = ledger.data
    key = quoted(ledger.columns[0].identifier)
    data.change(
        "INSERT INTO @tombstones SELECT DISTINCT run_id, key FROM @rejects "
        "WHERE run_id = ? AND key IS NOT NULL AND reason <> ?",
        (ledger.run_id, layout.DUPLICATE),
    )
    removed = _bury(ledger, base, key) if remove else 0
    over = scored + (base.rows - base.base_rows if base.base_table else 0)
    beneath, beneath_rows = base.base_table or base.own_table, base.base_rows or base.rows
    if data.layered and over <= LAYERED_SHARE * beneath_rows:
        carried = _lay_over(ledger, base, key, beneath, beneath_rows)
    else:
        carried = Carried(_copy(ledger, base.view, key), ledger.table)
    return replace(carried, removed=removed)


def _copy(ledger: RunLedger, origin: str, key: str) -> int:
    listed = ", ".join(quoted(column.identifier) for column in ledger.columns)
    return ledger.data.change(
        f"INSERT INTO {table(ledger.table)} ({listed}) SELECT {listed} FROM {table(origin)} b "  # noqa: S608
        f"WHERE {_holds(ledger, key)}"
    )


def _holds(ledger: RunLedger, key: str) -> str:
    """Return the condition under which a row ``b`` of the previous run is still valid."""
    own = table(ledger.table)
    # The scored rows have no index yet: the wrong operator would compare each row with every other.
    again = (
        f"EXISTS (SELECT 1 FROM {own} o WHERE o.{key} = b.{key})"  # noqa: S608
        if ledger.data.exists_hashes
        else f"b.{key} IN (SELECT {key} FROM {own})"  # noqa: S608
    )
    return (
        f"NOT {again} AND "  # noqa: S608
        f"NOT EXISTS (SELECT 1 FROM @tombstones g WHERE g.run_id = {ledger.run_id} "
        f"AND g.key = CAST(b.{key} AS text))"
    )


def _lay_over(ledger: RunLedger, base: Base, key: str, beneath: str, rows: int) -> Carried:
    data = ledger.data
    carried = 0
    if base.base_table:
        carried = _copy(ledger, base.own_table, key)
        data.change(
            "INSERT INTO @tombstones SELECT ?, key FROM @tombstones WHERE run_id = ? "
            "ON CONFLICT DO NOTHING",
            (ledger.run_id, base.run_id),
        )
        # A key that has reappeared has a row of its own again.
    listed = ", ".join(quoted(column.identifier) for column in ledger.columns)
    own, view = table(ledger.table), ledger.table + "_v"
    data.change(
        f"CREATE VIEW {table(view)} AS SELECT {listed} FROM {own} UNION ALL "  # noqa: S608
        f"SELECT {listed} FROM {table(beneath)} b WHERE {_holds(ledger, key)}"
    )
    kind = "bigint" if ledger.columns[0].kind == "int64" else "text"
    # One index lookup per key: a join would read the whole table for a few keys.
    keys = (
        f"SELECT {key} FROM {own} UNION "  # noqa: S608
        f"SELECT CAST(key AS {kind}) FROM @tombstones WHERE run_id = ?"
    )
    there = f"SELECT count(*) FROM {table(beneath)} b WHERE b.{key} = h.{key}"  # noqa: S608
    ((hidden,),) = data.rows(
        f"SELECT coalesce(sum(({there})), 0) FROM ({keys}) h",  # noqa: S608
        (ledger.run_id,),
    )
    return Carried(carried + rows - int(hidden), view, beneath, rows)


def _bury(ledger: RunLedger, base: Base, key: str) -> int:
    """Record the removed keys: their row hashes were not seen, and their keys were not either."""
    known, seen = (stored_row_hashes(ledger.data, run) for run in (base.run_id, ledger.run_id))
    gone = known[~among(seen, known)]
    if not len(gone):
        return 0
    return ledger.data.change(
        f"INSERT INTO @tombstones SELECT ?, CAST(b.{key} AS text) FROM {table(base.view)} b "  # noqa: S608
        f"WHERE b.{quoted(layout.HASH)} IN :each(?) AND {_holds(ledger, key)} "
        "ON CONFLICT DO NOTHING",
        (ledger.run_id, ledger.data.array(gone)),
    )


def stored_row_hashes(data: Database, run_id: int) -> Array:
    """Return the sorted hashes of all rows of a run's source that have a prediction."""
    parts = data.blobs("SELECT hashes FROM @sections WHERE run_id = ?", (run_id,))
    found = np.frombuffer(b"".join(parts), np.int64)
    return np.sort(found)


def digests(data: Database, run_id: int) -> frozenset[str]:
    """Return the digests of the sections of a run's source."""
    query = "SELECT digest FROM @sections WHERE run_id = ? AND digest IS NOT NULL"
    return frozenset(digest for (digest,) in data.rows(query, (run_id,)))


def among(known: Array, hashes: Array) -> Array:
    """Tell which of ``hashes`` (N,) are in ``known`` (M,), which is sorted."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    # In sorted order, so that consecutive searches touch nearby memory.
    order = np.argsort(hashes)
    at = np.searchsorted(known, hashes[order])
    at[at == len(known)] = 0
    found = np.empty(len(hashes), bool)
    found[order] = known[at] == hashes[order]
    return found
