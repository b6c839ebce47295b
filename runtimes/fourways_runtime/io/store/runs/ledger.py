"""The ledger of one run: which worker scores which part of the source, and what is recorded.

Owns the rules by which workers share a run. A part (chunk) is claimed, and recorded together with
its predictions and rejects in one transaction. A recorded chunk is never claimed again, so a
restarted run continues where the previous attempt ended. A claim only keeps others from doing the
same work: it ends with its lease or its worker, and the first worker to record a chunk counts,
whoever claimed it last. What is recorded does not depend on claims.

Each worker has two connections: one for claims, used from any thread, and one for rows.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any

import orjson

from fourways_runtime.errors import ConfigError, StoreUnavailable
from fourways_runtime.io.table_columns import TableColumn
from fourways_runtime.scoring.splits import Split

from .. import layout
from ..base import Run
from ..database import Database, TableMissing
from .plan import Base, Claim, Failure, Plan, RunSettings, Totals

LEASE_SECONDS = 60.0
"""How long a claim is valid unless its worker renews it."""

_LAST_CLAIM_SECONDS = 5.0
"""How long a worker that exits waits for a claim in progress."""

_ROWS_AT_ONCE = 500
_FIND = """
    SELECT r.id, r.state, r.table_name, l.fingerprint, l.state, l.own_table
    FROM @runs r LEFT JOIN @ledgers l ON l.run_id = r.id
    WHERE r.namespace = ? AND r.deployment = ? AND r.name = ?"""
_BASE = """
    SELECT r.id, r.version, r.digest, r.contract, r.table_name, r.rows, l.settings, l.watermark,
    l.since_full, l.own_table, l.base_table, l.base_rows, l.duplicates,
    EXISTS (SELECT 1 FROM @sections s WHERE s.run_id = r.id)
    FROM @published p JOIN @runs r ON r.id = p.run_id JOIN @ledgers l ON l.run_id = r.id
    WHERE p.namespace = ? AND p.deployment = ?"""
_CLAIM = """
    UPDATE @chunks SET state = 'claimed', owner = ?, attempts = attempts + 1, claimed_at = :now,
    lease_until = :now + ? WHERE run_id = ? AND number = (
        SELECT number FROM @chunks WHERE run_id = ? AND {which} ORDER BY number LIMIT 1 :skip)
    AND EXISTS (SELECT 1 FROM @ledgers WHERE run_id = ? AND state = 'open')
    RETURNING number, split, attempts"""
_TOTALS = """
    SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(rejects), 0),
    coalesce(sum(predictions), 0), sum(CASE WHEN state = 'done' THEN 1 ELSE 0 END),
    sum(CASE WHEN state = 'todo' THEN 1 ELSE 0 END)
    FROM @chunks WHERE run_id = ?"""


class RunLedger:
    """One worker's part in one run. Leaving the context releases its claims."""

    def __init__(self, data: Database, run: Run, settings: RunSettings, worker: str) -> None:
        self.data = data
        self.control = data.second()
        self.run = run
        self.settings = settings
        self.owner = secrets.token_hex(8)
        self._worker = worker
        self.run_id = 0
        self.table = ""
        self.kind = "full"
        self.base: Base | None = None
        self.total_rows: int | None = None
        self.since: Any = None
        self.because: str | None = None
        """Why all rows are scored although the run was meant to be incremental."""

        self._claiming = threading.Lock()
        self._leaving = False

    def __enter__(self) -> RunLedger:
        return self

    def __exit__(self, *exc: object) -> None:
        """Release unfinished claims; an open transaction is rolled back."""
        # Wait for a claim that another thread is making, to release it too; no further ones follow.
        waited = self._claiming.acquire(timeout=_LAST_CLAIM_SECONDS)
        self._leaving = True
        if waited:
            self._claiming.release()
        # If this fails, the claims end a little later, with the lease or with this connection.
        with closing(self.control), suppress(StoreUnavailable, TableMissing):
            self.data.close()
            self.control.change(
                "UPDATE @chunks SET state = 'todo', owner = '' "
                "WHERE run_id = ? AND owner = ? AND state = 'claimed'",
                (self.run_id, self.owner),
            )

    # ------------------------------------------------------------ starting

    def join(self) -> bool:
        """Find or start the run; False if it is already published.

        A run that was abandoned, or was started with another model, contract or source, starts
        over, unless a worker is still running it.

        Raises:
            ConfigError: workers are running a run of this name with another configuration.

        """
        run = self.run
        whose = (run.namespace, run.deployment, run.name)
        self.control.hold(self._lock(self.owner))
        with self.control.transaction("\0".join(whose)):
            found = self.control.rows(_FIND, whose)
            if found and found[0][1] == "published":
                return False
            if found and (found[0][3] != self.settings.fingerprint or found[0][4] == "failed"):
                self._abandon(found[0][0], found[0][4])
                found = []
            self.run_id = int(found[0][0]) if found else self._begin()
            self.table = found[0][5] if found else self.table
            self.control.change(
                "INSERT INTO @workers (run_id, owner, name, started_at) VALUES (?, ?, ?, :now)",
                (self.run_id, self.owner, self._worker),
            )
        return True

    def _abandon(self, run_id: int, state: str) -> None:
        if state != "failed" and self.alive(run_id):
            raise ConfigError(
                f"run {self.run.name} is already in progress with another model, contract or "
                "source; give the new run another name"
            )
        self.control.change("DELETE FROM @runs WHERE id = ?", (run_id,))

    def _begin(self) -> int:
        run, control = self.run, self.control
        whose = (run.namespace, run.deployment, run.name)
        ((run_id,),) = control.rows(
            "INSERT INTO @runs (namespace, deployment, name, version, digest, contract, started_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (
                *whose,
                run.version,
                run.digest,
                layout.dump_contract(run.contract),
                control.time(run.started_at),
            ),
        )
        self.table = ""
        if self.settings.own_table:
            self.table = layout.table_name(run_id, *whose)
            control.create(self.table, self.columns)
            control.change("UPDATE @runs SET table_name = ? WHERE id = ?", (self.table, run_id))
        control.change(
            "INSERT INTO @ledgers (run_id, fingerprint, settings, own_table) VALUES (?, ?, ?, ?)",
            (
                run_id,
                self.settings.fingerprint,
                orjson.dumps(asdict(self.settings)).decode(),
                self.table,
            ),
        )
        return int(run_id)

    @property
    def columns(self) -> tuple[TableColumn, ...]:
        """Columns of the run's own table: key, position, hash if runs are compared, outputs."""
        key, *outputs = layout.columns(self.run.contract)
        position = TableColumn(layout.POSITION, layout.POSITION, "int64", ())
        more = (TableColumn(layout.HASH, layout.HASH, "int64", ()),)
        return (key, position, *(more if self.settings.row_hash else ()), *outputs)

    def alive(self, run_id: int) -> bool:
        """Tell whether any worker is running a run."""
        owners = self.control.rows("SELECT owner FROM @workers WHERE run_id = ?", (run_id,))
        # Checks every lock, because the check cleans up what dead workers left.
        return sum(self.control.held(self._lock(owner)) for (owner,) in owners) > 0

    @staticmethod
    def _lock(owner: str) -> str:
        return f"worker {owner}"

    def lay_out(self, plan: Callable[[Base | None], Plan]) -> None:
        """Write the plan's chunks, unless another worker has done so."""
        with self.control.transaction(f"lay out {self.run_id}"):
            if self._state() == "new":
                self._write(plan(self._published()))
        ((kind, total, base_id, since, settings),) = self.control.rows(
            "SELECT kind, total_rows, base_id, since, settings FROM @ledgers WHERE run_id = ?",
            (self.run_id,),
        )
        self.because = orjson.loads(settings).get("because")
        self.kind, self.total_rows = kind, total
        self.since = None if since is None else orjson.loads(since)
        self.base = self._published() if kind != "full" else None
        if kind != "full" and (self.base is None or self.base.run_id != base_id):
            # It carries over rows of a run that readers no longer see.
            self.fail("BaseMoved", "another run was published while this one was scored", 75)
            raise StoreUnavailable("another run was published while this one was scored")

    def _published(self) -> Base | None:
        found = self.control.rows(_BASE, (self.run.namespace, self.run.deployment))
        if not found or not found[0][4]:
            return None
        run_id, version, digest, contract, view, rows, settings, watermark, since, *layers = found[
            0
        ]
        stored = orjson.loads(settings)
        return Base(
            run_id,
            version,
            digest,
            contract,
            view,
            rows,
            stored["watermark"],
            stored["row_hash"],
            None if watermark is None else orjson.loads(watermark),
            since,
            *layers,
        )

    def _write(self, plan: Plan) -> None:
        for start in range(0, len(plan.splits), _ROWS_AT_ONCE):
            some = plan.splits[start : start + _ROWS_AT_ONCE]
            marks = ", ".join(["(?, ?, ?)"] * len(some))
            values = [
                value
                for split in some
                for value in (self.run_id, split.number, orjson.dumps(asdict(split)).decode())
            ]
            self.control.change(
                f"INSERT INTO @chunks (run_id, number, split) VALUES {marks}",  # noqa: S608
                values,
            )
        base = plan.base
        self.control.change(
            "UPDATE @ledgers SET state = 'open', kind = ?, total_rows = ?, base_id = ?, "
            "since = ?, since_full = ?, settings = ? WHERE run_id = ?",
            (
                plan.kind,
                plan.total_rows,
                base.run_id if base else None,
                None if plan.watermark is None else orjson.dumps(plan.watermark).decode(),
                base.since_full + 1 if base else 0,
                orjson.dumps({**asdict(self.settings), "because": plan.because}).decode(),
                self.run_id,
            ),
        )

    def watermark(self) -> Any:
        """Return the highest watermark of the sealed run; None if it has none."""
        ((found,),) = self.control.rows(
            "SELECT watermark FROM @ledgers WHERE run_id = ?", (self.run_id,)
        )
        return None if found is None else orjson.loads(found)

    # ------------------------------------------------------------ sharing

    def divided(self) -> str | None:
        """Return the name of a chunk that is only a part of one value's rows; None without one."""
        found = self.control.rows(
            "SELECT split FROM @chunks WHERE run_id = ? AND split LIKE ? LIMIT 1",
            (self.run_id, '%"parts":%'),
        )
        return None if not found else str(orjson.loads(found[0][0])["file"])

    def claim(self) -> Claim | None:
        """Claim the next chunk that no worker holds; None if there is none now."""
        return self._claim("state = 'todo'", ()) or self._orphan()

    def left(self) -> list[tuple[int, int]]:
        """Return the numbers of the unrecorded chunks, in order, with their attempts."""
        found = self.control.rows(
            "SELECT number, attempts FROM @chunks WHERE run_id = ? AND state <> 'done' "
            "ORDER BY number",
            (self.run_id,),
        )
        return [(int(number), int(attempts)) for number, attempts in found]

    def late(self) -> list[str]:
        """Return the names of the workers that have not renewed the lease of a claim."""
        found = self.control.rows(
            "SELECT DISTINCT w.name FROM @chunks c JOIN @workers w ON w.run_id = c.run_id "
            "AND w.owner = c.owner WHERE c.run_id = ? AND c.state = 'claimed' "
            "AND c.lease_until < :now",
            (self.run_id,),
        )
        return [str(name) for (name,) in found]

    def _orphan(self) -> Claim | None:
        """Claim a chunk whose worker is gone or whose lease has expired."""
        for owner, late in self.control.rows(
            "SELECT owner, max(CASE WHEN lease_until < :now THEN 1 ELSE 0 END) FROM @chunks "
            "WHERE run_id = ? AND state = 'claimed' AND owner <> ? GROUP BY owner",
            (self.run_id, self.owner),
        ):
            if late or not self.control.held(self._lock(owner)):
                which = "state = 'claimed' AND owner = ?" + (" AND lease_until < :now" * late)
                claim = self._claim(which, (owner,))
                if claim is not None:
                    return claim
        return None

    def steal(self, times_slower: float = 3.0, at_least: float = 5.0) -> Claim | None:
        """Claim a chunk that another live worker has held for far longer than usual."""
        rows = self.control.rows(
            "SELECT done_at - claimed_at FROM @chunks WHERE run_id = ? AND state = 'done' "
            "ORDER BY 1",
            (self.run_id,),
        )
        usual = rows[len(rows) // 2][0] if rows else None
        if usual is None:
            return None
        patience = max(at_least, times_slower * usual)
        return self._claim(
            "state = 'claimed' AND owner <> ? AND :now - claimed_at > ?", (self.owner, patience)
        )

    def _claim(self, which: str, values: tuple[Any, ...]) -> Claim | None:
        with self._claiming:
            if self._leaving:
                return None
            found = self.control.rows(
                _CLAIM.format(which=which),
                (self.owner, LEASE_SECONDS, self.run_id, self.run_id, *values, self.run_id),
            )
        if not found:
            return None
        number, split, attempts = found[0]
        return Claim(number, Split(**orjson.loads(split)), attempts)

    def renew(self) -> None:
        """Renew the leases of this worker's claims."""
        self.control.change(
            "UPDATE @chunks SET lease_until = :now + ? "
            "WHERE run_id = ? AND owner = ? AND state = 'claimed'",
            (LEASE_SECONDS, self.run_id, self.owner),
        )

    def note_hang(self, number: int, first: int, last: int) -> None:
        """Note between which positions of a chunk the model hangs, for who claims it next."""
        for (text,) in self.control.rows(
            "SELECT split FROM @chunks WHERE run_id = ? AND number = ?", (self.run_id, number)
        ):
            split = orjson.loads(text)
            split["hung"] = [*split.get("hung", ()), [first, last]]
            self.control.change(
                "UPDATE @chunks SET split = ? WHERE run_id = ? AND number = ? AND state <> 'done'",
                (orjson.dumps(split).decode(), self.run_id, number),
            )

    def receipts(self) -> dict[int, str]:
        """Return the receipt of each recorded chunk, by number."""
        return dict(
            self.control.rows(
                "SELECT number, receipt FROM @chunks WHERE run_id = ? AND state = 'done' "
                "ORDER BY number",
                (self.run_id,),
            )
        )

    def totals(self) -> Totals:
        """Return the run's totals so far. Raises StoreUnavailable."""
        ((*counts,),) = self.control.rows(_TOTALS, (self.run_id,))
        return Totals(*(int(count or 0) for count in counts))

    def failure(self) -> Failure | None:
        """Return why the run was abandoned, if it was. Raises StoreUnavailable."""
        if self._state() != "failed":
            return None
        ((reason, message, code),) = self.control.rows(
            "SELECT reason, message, exit_code FROM @ledgers WHERE run_id = ?", (self.run_id,)
        )
        return Failure(reason, message, code)

    def fail(self, reason: str, message: str, exit_code: int) -> None:
        """Abandon the run for all of its workers; what is recorded stays for inspection."""
        self.control.change(
            "UPDATE @ledgers SET state = 'failed', reason = ?, message = ?, exit_code = ? "
            "WHERE run_id = ? AND state <> 'failed'",
            (reason, message, exit_code, self.run_id),
        )

    def _state(self) -> str:
        found = self.control.rows("SELECT state FROM @ledgers WHERE run_id = ?", (self.run_id,))
        if not found:
            raise taken_over(self.run)
        return str(found[0][0])


def taken_over(run: Run) -> StoreUnavailable:
    """Return the error for a run whose rows are gone: another attempt has started it over."""
    return StoreUnavailable(f"another worker has taken over run {run.name}")
