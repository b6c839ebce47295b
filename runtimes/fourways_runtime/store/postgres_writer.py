"""Writing runs to PostgreSQL: COPY aside, index, and move the pointer in one transaction.

Every statement may be the last one of this process or of the connection, and a try of the same run
may start while an older one, cut off, still believes it is at work. So each try has a row and a
table of its own; a later try deletes the row, and what is left of the older one then fails at its
next reject or at publishing. A session lock tells the living from the dead.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Self

import psycopg
from psycopg import sql

from ..errors import ConfigError, StoreUnavailable
from ..records import Predictions, Reject
from . import layout, pgcopy
from .base import PublishedRun, Run, Sealed
from .postgres import conninfo, ensure_schema, explain, lock_number, translated

CONNECT_SECONDS = 10.0
_LIVING = 0x4657  # First half of the locks that living workers hold; the second is the run's id.
_log = logging.getLogger(__name__)

_FIND = f"""SELECT {layout.RUN_COLUMNS} FROM fourways.runs r WHERE r.namespace = %s
    AND r.deployment = %s AND r.name = %s AND r.state = 'published'"""  # noqa: S608
_PUBLISHED = f"""SELECT {layout.RUN_COLUMNS} FROM fourways.published p JOIN fourways.runs r
    ON r.id = p.run_id WHERE p.namespace = %s AND p.deployment = %s"""  # noqa: S608
_DEDUPLICATE = """
    WITH ranked AS (
        SELECT ctid AS at, row_number() OVER (PARTITION BY {key} ORDER BY {position} DESC) AS rank
        FROM {table}),
    gone AS (
        DELETE FROM {table} t USING ranked WHERE t.ctid = ranked.at AND ranked.rank > 1
        RETURNING t.{position} AS position, t.{key}::text AS key)
    INSERT INTO fourways.rejects SELECT %s, position, key, %s, %s FROM gone"""
_MOVE = """
    INSERT INTO fourways.published (namespace, deployment, run_id) VALUES (%s, %s, %s)
    ON CONFLICT (namespace, deployment) DO UPDATE SET run_id = excluded.run_id, moved_at = now()"""
_EXCESS = """
    SELECT id, table_name FROM fourways.runs r WHERE namespace = %s AND deployment = %s
    AND state = 'published' AND NOT EXISTS (SELECT FROM fourways.published p WHERE p.run_id = r.id)
    ORDER BY published_at DESC, id DESC OFFSET %s"""
# Materialised, so that only this deployment's runs are tried: a lock got here is held.
_DEAD = """
    WITH unfinished AS MATERIALIZED (
        SELECT id, table_name FROM fourways.runs
        WHERE namespace = %s AND deployment = %s AND state = 'writing')
    SELECT id, table_name FROM unfinished
    WHERE pg_try_advisory_lock(%s, (id %% 2147483648)::integer)"""
_ORPHANS = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'fourways' AND c.relkind = 'r' AND c.relname ~ '^run_[0-9a-f]{24}$'
    AND NOT EXISTS (SELECT FROM fourways.runs r WHERE r.table_name = c.relname)"""


class PostgresWriter:
    """The store as a batch worker sees it; see :class:`.base.StoreWriter`."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with translated(uri):
            self._connection = psycopg.connect(conninfo(uri, CONNECT_SECONDS), autocommit=True)
            try:
                ensure_schema(self._connection)
            except BaseException:
                self._connection.close()
                raise

    def open_run(self, run: Run) -> PostgresRun:
        """Start a run."""
        with translated(self._uri):
            return PostgresRun(self._connection, self._uri, run)

    def finished(self, namespace: str, deployment: str, run: str) -> PublishedRun | None:
        """Return this very run if it was published."""
        return self._one(_FIND, (namespace, deployment, run))

    def published(self, namespace: str, deployment: str) -> PublishedRun | None:
        """Return the run readers see now."""
        return self._one(_PUBLISHED, (namespace, deployment))

    def _one(self, query: str, values: tuple[str, ...]) -> PublishedRun | None:
        with translated(self._uri):
            row = self._connection.execute(query, values).fetchone()
        return None if row is None else layout.published_run(row)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class PostgresRun:
    """One try of a run; see :class:`.base.RunWriter`."""

    def __init__(self, connection: psycopg.Connection, uri: str, run: Run) -> None:
        self._connection = connection
        self._uri = uri
        self._run = run
        self._columns = layout.columns(run.contract)
        key, *outputs = self._columns
        position = layout.Column(layout.POSITION, layout.POSITION, "int64", ())
        self._order = (key, position, *outputs)
        self._packer = pgcopy.Packer(self._order)
        self._rows = 0
        self._rejects = 0
        self._sealed: Sealed | None = None
        self._published = False
        self._computed_at = run.started_at
        self._claim()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        idle = self._connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if not self._published and idle:
            self._drop(self._id, self._name)

    def write(self, predictions: Predictions) -> None:
        """Append predictions."""
        if not len(predictions):
            return
        values = [predictions.keys, predictions.rows]
        values += [predictions.columns[column.name] for column in self._columns[1:]]
        with (
            self._ours(),
            self._connection.cursor() as cursor,
            cursor.copy(sql.SQL("COPY {} FROM STDIN BINARY").format(self._table)) as copy,
        ):
            copy.write(pgcopy.HEADER)
            copy.write(self._packer.pack(values))
            copy.write(pgcopy.TRAILER)
        self._rows += len(predictions)
        self._computed_at = datetime.now(UTC)

    def reject(self, rejects: list[Reject]) -> None:
        """Append rejects."""
        if not rejects:
            return
        into = "COPY fourways.rejects (run_id, position, key, field, reason) FROM STDIN"
        with (
            self._ours(),
            self._connection.cursor() as cursor,
            cursor.copy(into) as copy,
        ):
            for reject in rejects:
                texts = (reject.key, reject.field, reject.reason)
                copy.write_row((self._id, reject.row, *map(_storable, texts)))
        self._rejects += len(rejects)

    def seal(self) -> Sealed:
        """Index the keys, and settle the ones that occur more than once."""
        if self._sealed is None:
            key = sql.Identifier(self._columns[0].identifier)
            index = sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(self._table, key)
            duplicates = 0
            with self._ours():
                try:
                    self._connection.execute(index)
                except psycopg.errors.UniqueViolation:
                    with self._connection.transaction():
                        duplicates = self._deduplicate(key)
                        self._connection.execute(index)
            self._sealed = Sealed(self._rows - duplicates, self._rejects + duplicates)
        return self._sealed

    def publish(self, keep: int) -> PublishedRun:
        """Make this run what readers see; keep ``keep`` runs in all."""
        sealed = self.seal()
        run = self._run
        with translated(self._uri), self._connection.transaction():
            updated = self._connection.execute(
                "UPDATE fourways.runs SET state = 'published', published_at = now(), "
                "computed_at = %s, rows = %s, rejects = %s WHERE id = %s AND state = 'writing'",
                (self._computed_at, sealed.rows, sealed.rejects, self._id),
            )
            if updated.rowcount != 1:
                raise self._taken_over()
            self._connection.execute(_MOVE, (run.namespace, run.deployment, self._id))
        self._published = True
        self._prune(keep)
        return PublishedRun(
            run.name, run.version, run.digest, run.contract, self._computed_at,
            sealed.rows, sealed.rejects,
        )  # fmt: skip

    def _claim(self) -> None:
        run = self._run
        whose = (run.namespace, run.deployment, run.name)
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number(*whose),))
            old = self._connection.execute(
                "SELECT id, table_name, state FROM fourways.runs "
                "WHERE namespace = %s AND deployment = %s AND name = %s",
                whose,
            ).fetchone()
            if old is not None and old[2] == "published":
                raise ConfigError(
                    f"run {run.name} is published already; give the new run a name of its own"
                )
            if old is not None:
                self._connection.execute("DELETE FROM fourways.runs WHERE id = %s", (old[0],))
            row = self._connection.execute(
                "INSERT INTO fourways.runs (namespace, deployment, name, version, digest, contract,"
                " started_at) VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
                (*whose, run.version, run.digest, layout.dump_contract(run.contract),
                 run.started_at),
            ).fetchone()  # fmt: skip
            self._id = int(row[0]) if row else 0
            self._name = layout.table_name(self._id, *whose)
            self._table = sql.Identifier("fourways", self._name)
            self._connection.execute(
                "SELECT pg_advisory_lock(%s, %s)", (_LIVING, self._id % 2147483648)
            )
            self._connection.execute(
                "UPDATE fourways.runs SET table_name = %s WHERE id = %s", (self._name, self._id)
            )
            self._connection.execute(self._create())
        if old is not None:
            self._drop(old[0], old[1])

    def _create(self) -> sql.Composed:
        defined = sql.SQL(", ").join(
            sql.SQL("{} {} NOT NULL").format(
                sql.Identifier(column.identifier), _type(column, key=column is self._columns[0])
            )
            for column in self._order
        )
        return sql.SQL("CREATE TABLE {} ({})").format(self._table, defined)

    def _deduplicate(self, key: sql.Identifier) -> int:
        query = sql.SQL(_DEDUPLICATE).format(
            key=key, position=sql.Identifier(layout.POSITION), table=self._table
        )
        name = self._columns[0].name
        return self._connection.execute(query, (self._id, name, layout.DUPLICATE)).rowcount

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Translate errors; ours are gone if a later try of this run dropped them."""
        try:
            with translated(self._uri):
                yield
        except (psycopg.errors.UndefinedTable, psycopg.errors.ForeignKeyViolation):
            raise self._taken_over() from None

    def _taken_over(self) -> StoreUnavailable:
        return StoreUnavailable(f"another worker has taken over run {self._run.name}")

    def _prune(self, keep: int) -> None:
        """Drop what nobody needs. A failure costs room, not the run: the next run tries again."""
        whose = (self._run.namespace, self._run.deployment)
        try:
            for row in self._connection.execute(_EXCESS, (*whose, keep - 1)).fetchall():
                self._drop(*row)
            for row in self._connection.execute(_DEAD, (*whose, _LIVING)).fetchall():
                self._drop(*row)
                self._connection.execute(
                    "SELECT pg_advisory_unlock(%s, %s)", (_LIVING, row[0] % 2147483648)
                )
            for (name,) in self._connection.execute(_ORPHANS).fetchall():
                self._drop(None, name)
        except psycopg.Error as error:
            _log.warning("old runs were not dropped: %s", explain(error, self._uri))

    def _drop(self, run_id: int | None, table: str) -> None:
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("fourways", table))
        try:
            with self._connection.transaction():
                # A reader at work holds the table for a moment; a hung one must not hold us.
                self._connection.execute("SET LOCAL lock_timeout = '1s'")
                self._connection.execute("DELETE FROM fourways.runs WHERE id = %s", (run_id,))
                self._connection.execute(drop)
        except psycopg.Error as error:
            _log.warning("table %s was not dropped: %s", table, explain(error, self._uri))


def _type(column: layout.Column, *, key: bool) -> sql.SQL:
    # Bytewise order: an index that neither costs a collation nor breaks with an upgrade of one.
    collated = key and column.kind == "string"
    return sql.SQL(pgcopy.sql_type(column) + (' COLLATE "C"' if collated else ""))


def _storable(text: str | None) -> str | None:
    """Return text a database takes: reasons quote what the source held."""
    if text is None:
        return None
    return text.replace("\0", "\\0").encode("utf-8", "replace").decode()
