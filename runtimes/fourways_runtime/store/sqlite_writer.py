"""Writing runs to SQLite: aside, then indexed, then published by moving the pointer.

The same steps and the same guards as in PostgreSQL; what a session lock is there, a lock on a file
beside the database is here: the kernel lets go of it when its holder dies.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import orjson

from ..errors import ConfigError, StoreUnavailable
from ..records import Array, Predictions, Reject
from . import layout
from .base import PublishedRun, Run, Sealed
from .sqlite import connect, quoted, sql_type, transaction, translated

_FIND = f"""SELECT {layout.RUN_COLUMNS} FROM runs r WHERE r.namespace = ?
    AND r.deployment = ? AND r.name = ? AND r.state = 'published'"""  # noqa: S608
_PUBLISHED = f"""SELECT {layout.RUN_COLUMNS} FROM published p JOIN runs r
    ON r.id = p.run_id WHERE p.namespace = ? AND p.deployment = ?"""  # noqa: S608
_MOVE = """
    INSERT INTO published (namespace, deployment, run_id) VALUES (?, ?, ?)
    ON CONFLICT (namespace, deployment) DO UPDATE
    SET run_id = excluded.run_id, moved_at = CURRENT_TIMESTAMP"""
_EXCESS = """
    SELECT id, table_name FROM runs r WHERE namespace = ? AND deployment = ?
    AND state = 'published' AND NOT EXISTS (SELECT 1 FROM published p WHERE p.run_id = r.id)
    ORDER BY published_at DESC, id DESC LIMIT -1 OFFSET ?"""


class SqliteWriter:
    """The store as a batch worker sees it; see :class:`.base.StoreWriter`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with translated(path):
            self._connection = connect(path)

    def open_run(self, run: Run) -> SqliteRun:
        """Start a run."""
        with translated(self._path):
            return SqliteRun(self._connection, self._path, run)

    def finished(self, namespace: str, deployment: str, run: str) -> PublishedRun | None:
        """Return this very run if it was published."""
        return self._one(_FIND, (namespace, deployment, run))

    def published(self, namespace: str, deployment: str) -> PublishedRun | None:
        """Return the run readers see now."""
        return self._one(_PUBLISHED, (namespace, deployment))

    def _one(self, query: str, values: tuple[str, ...]) -> PublishedRun | None:
        with translated(self._path):
            row = self._connection.execute(query, values).fetchone()
        return None if row is None else layout.published_run(row)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class SqliteRun:
    """One try of a run; see :class:`.base.RunWriter`."""

    def __init__(self, connection: sqlite3.Connection, path: Path, run: Run) -> None:
        self._connection = connection
        self._path = path
        self._run = run
        self._columns = layout.columns(run.contract)
        self._rows = 0
        self._rejects = 0
        self._sealed: Sealed | None = None
        self._published = False
        self._computed_at = run.started_at
        self._claim()
        marks = ", ".join("?" * (len(self._columns) + 1))
        self._insert = f"INSERT INTO {quoted(self._table)} VALUES ({marks})"  # noqa: S608

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._published:
            with suppress(sqlite3.Error):
                self._drop(self._id, self._table)
        _release(self._path, self._id, self._lock)

    def write(self, predictions: Predictions) -> None:
        """Append predictions."""
        if not len(predictions):
            return
        values: list[list[Any]] = [predictions.keys.tolist(), predictions.rows.tolist()]
        values += [_cells(column, predictions.columns[column.name]) for column in self._columns[1:]]
        with self._ours(), transaction(self._connection):
            self._connection.executemany(self._insert, zip(*values, strict=True))
        self._rows += len(predictions)
        self._computed_at = datetime.now(UTC)

    def reject(self, rejects: list[Reject]) -> None:
        """Append rejects."""
        if not rejects:
            return
        rows = [(self._id, r.row, r.key, r.field, r.reason) for r in rejects]
        with self._ours(), transaction(self._connection):
            self._connection.executemany("INSERT INTO rejects VALUES (?, ?, ?, ?, ?)", rows)
        self._rejects += len(rejects)

    def seal(self) -> Sealed:
        """Index the keys, and settle the ones that occur more than once."""
        if self._sealed is None:
            key = quoted(self._columns[0].identifier)
            name, table = quoted(self._table + "_key"), quoted(self._table)
            index = f"CREATE UNIQUE INDEX {name} ON {table} ({key})"
            duplicates = 0
            with self._ours(), transaction(self._connection):
                try:
                    self._connection.execute(index)
                except sqlite3.IntegrityError:
                    duplicates = self._deduplicate(key)
                    self._connection.execute(index)
            self._sealed = Sealed(self._rows - duplicates, self._rejects + duplicates)
        return self._sealed

    def publish(self, keep: int) -> PublishedRun:
        """Make this run what readers see; keep ``keep`` runs in all."""
        sealed = self.seal()
        run = self._run
        with translated(self._path), transaction(self._connection):
            updated = self._connection.execute(
                "UPDATE runs SET state = 'published', published_at = ?, computed_at = ?, rows = ?, "
                "rejects = ? WHERE id = ? AND state = 'writing'",
                (datetime.now(UTC).isoformat(), self._computed_at.isoformat(), sealed.rows,
                 sealed.rejects, self._id),
            )  # fmt: skip
            if updated.rowcount != 1:
                raise self._taken_over()
            self._connection.execute(_MOVE, (run.namespace, run.deployment, self._id))
        self._published = True
        with suppress(sqlite3.Error):
            self._prune(keep)
        return PublishedRun(
            run.name, run.version, run.digest, run.contract, self._computed_at,
            sealed.rows, sealed.rejects,
        )  # fmt: skip

    def _claim(self) -> None:
        run = self._run
        whose = (run.namespace, run.deployment, run.name)
        with transaction(self._connection):
            old = self._connection.execute(
                "SELECT id, table_name, state FROM runs "
                "WHERE namespace = ? AND deployment = ? AND name = ?",
                whose,
            ).fetchone()
            if old is not None:
                if old[2] == "published":
                    raise ConfigError(
                        f"run {run.name} is published already; give the new run a name of its own"
                    )
                self._forget(old[0], old[1])
            cursor = self._connection.execute(
                "INSERT INTO runs (namespace, deployment, name, version, digest, contract,"
                " started_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*whose, run.version, run.digest, layout.dump_contract(run.contract),
                 run.started_at.isoformat()),
            )  # fmt: skip
            self._id = int(cursor.lastrowid or 0)
            self._table = layout.table_name(self._id, *whose)
            self._connection.execute(
                "UPDATE runs SET table_name = ? WHERE id = ?", (self._table, self._id)
            )
            key, *outputs = self._columns
            position = layout.Column(layout.POSITION, layout.POSITION, "int64", ())
            defined = ", ".join(
                f"{quoted(c.identifier)} {sql_type(c)} NOT NULL" for c in (key, position, *outputs)
            )
            self._connection.execute(f"CREATE TABLE {quoted(self._table)} ({defined})")
            self._lock = _hold(self._path, self._id)

    def _deduplicate(self, key: str) -> int:
        table, position = quoted(self._table), quoted(layout.POSITION)
        later = f"""FROM {table} t WHERE EXISTS (SELECT 1 FROM {table} u
            WHERE u.{key} = t.{key} AND u.{position} > t.{position})"""  # noqa: S608
        # Without an index each row would be compared with each.
        self._connection.execute(f"CREATE INDEX duplicates ON {table} ({key}, {position})")
        self._connection.execute(
            f"INSERT INTO rejects SELECT ?, t.{position}, t.{key}, ?, ? {later}",
            (self._id, self._columns[0].name, layout.DUPLICATE),
        )
        gone = self._connection.execute(
            f"DELETE FROM {table} WHERE rowid IN (SELECT t.rowid {later})"  # noqa: S608
        ).rowcount
        self._connection.execute("DROP INDEX duplicates")
        return gone

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Translate errors; ours are gone if a later try of this run dropped them."""
        try:
            with translated(self._path):
                yield
        except (StoreUnavailable, sqlite3.IntegrityError) as error:
            if isinstance(error, sqlite3.IntegrityError) or "no such table" in str(error):
                raise self._taken_over() from None
            raise

    def _taken_over(self) -> StoreUnavailable:
        return StoreUnavailable(f"another worker has taken over run {self._run.name}")

    def _prune(self, keep: int) -> None:
        whose = (self._run.namespace, self._run.deployment)
        for row in self._connection.execute(_EXCESS, (*whose, keep - 1)).fetchall():
            self._drop(*row)
        unfinished = self._connection.execute(
            "SELECT id, table_name FROM runs WHERE namespace = ? AND deployment = ? "
            "AND state = 'writing'",
            whose,
        ).fetchall()
        for run_id, table in unfinished:
            lock = _hold(self._path, run_id)
            if lock is not None:
                self._drop(run_id, table)
            _release(self._path, run_id, lock)

    def _drop(self, run_id: int, table: str) -> None:
        with transaction(self._connection):
            self._forget(run_id, table)

    def _forget(self, run_id: int, table: str) -> None:
        self._connection.execute("DELETE FROM runs WHERE id = ?", (run_id,))
        self._connection.execute(f"DROP TABLE IF EXISTS {quoted(table)}")


def _cells(column: layout.Column, values: Array) -> list[Any]:
    if column.shape:
        return [orjson.dumps(value).decode() for value in values.tolist()]
    if column.kind == "uint64":
        return [str(value) for value in values.tolist()]
    cells: list[Any] = values.tolist()
    return cells


def _hold(path: Path, run_id: int) -> int | None:
    """Lock the file that says a run's worker lives; None if it does."""
    handle = os.open(_lock_file(path, run_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _release(path: Path, run_id: int, handle: int | None) -> None:
    if handle is not None:
        with suppress(OSError):
            os.unlink(_lock_file(path, run_id))
        os.close(handle)


def _lock_file(path: Path, run_id: int) -> Path:
    return path.with_name(f"{path.name}-run-{run_id}")
