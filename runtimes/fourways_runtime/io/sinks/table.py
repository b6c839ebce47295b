"""Predictions in a user's PostgreSQL table: first a staging table, then one transaction.

Each chunk is copied into the run's own staging table, beside the user's table; publishing moves the
rows over, and empties the staging table, in one transaction. So readers see either all old rows or
all new ones, and a worker that does not know whether its COMMIT succeeded can find out. Rows are
deleted, not truncated: a TRUNCATE shows an empty table to readers with an older snapshot.

Columns, types, privileges and the unique index are checked before the first row is scored. The rows
that the table accepted are counted before the transaction ends: a trigger, a rule or row security
drops rows without an error. Every wait for a lock is limited, and the error names the holder of the
lock.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

import numpy as np
import orjson
import psycopg
from psycopg import sql

from fourways_api import Contract, FetchPolicy, Paths
from fourways_api.modes import TableSink as TableSpec
from fourways_runtime.errors import ConfigError, SinkUnavailable, StoreFull
from fourways_runtime.scoring.columns import Keys, Predictions, Reject

from ..postgres import copy_in as pgcopy
from ..postgres.user_database import UserDatabase
from ..store.layout import DUPLICATE, columns
from ..table_columns import TableColumn
from .parquet import marked
from .table_checks import check_table, lock_holders, meddlers

CHUNK = TableColumn("$chunk", "$chunk", "int64", ())
ATTEMPT = TableColumn("$attempt", "$attempt", "int64", ())
ROW = TableColumn("$row", "$row", "int64", ())
LOCK_SECONDS = 20
"""Maximum wait for a lock on a table, in seconds."""

_ASIDE_LOCK_SECONDS = 1
"""The same, for cleanup that the next run repeats anyway."""

LEFT_DAYS = 8
"""Days after which the remains of a run are removed: longer than any run may take."""


class PostgresTableSink:
    """See :class:`.base.PredictionSink`."""

    def __init__(
        self, spec: TableSpec, contract: Contract, run: str, paths: Paths, policy: FetchPolicy
    ) -> None:
        self._spec = spec
        self._columns = columns(contract)
        mapped = {each.output: each.column for each in spec.columns}
        known = {column.name for column in self._columns}
        for output in mapped:
            if output not in known:
                raise ConfigError(f"sink.table.columns: the contract has no output {output}")
        self._into = tuple(mapped.get(column.name, column.name) for column in self._columns)
        if len(set(self._into)) < len(self._into):
            raise ConfigError("sink.table.columns: two outputs go to one column")
        self._target = tuple(spec.table.split("."))
        digest = hashlib.sha256(f"{spec.table}\0{run}".encode()).hexdigest()[:24]
        self._aside = f"fourways_{digest}"
        self._database = UserDatabase(
            spec.database,
            paths,
            "the sink's database",
            unavailable=SinkUnavailable,
            refused=ConfigError,
            full=StoreFull,
            policy=policy,
        )
        self._connection: psycopg.Connection | None = None
        self._staging = (CHUNK, ATTEMPT, ROW, *self._columns)
        self._packer = pgcopy.Packer(self._staging)

    def begin(self) -> None:
        """Check the table, and create the staging table."""
        with self._session() as connection, connection.transaction():
            schema = check_table(
                connection,
                self._target,
                self._columns,
                self._into,
                upsert=self._spec.write == "Upsert",
            )
            self._target = (schema, self._target[-1])
            # Several workers may begin at the same time.
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (self._aside,))
            if self._comment(connection) is None:
                defined = sql.SQL(", ").join(
                    sql.SQL("{} {} NOT NULL").format(
                        sql.Identifier(column.identifier),
                        sql.SQL(pgcopy.sql_type(column)),
                    )
                    for column in self._staging
                )
                connection.execute(sql.SQL("CREATE TABLE {} ({})").format(self._beside(), defined))
                self._note(connection, {"writing": self._spec.table})
            self._sweep(connection)

    def probe(self) -> None:
        """Ask the database something small."""
        with closing(self._database.connect()) as connection:
            connection.execute("SELECT 1")

    def chunk(self, number: int, attempt: int) -> TableChunk:
        """Begin to copy a chunk."""
        # A restarted run counts its attempts from the start: a random number distinguishes the rows
        # of this attempt from all others.
        return TableChunk(self, number, secrets.randbits(63))

    def repeated(self, receipts: Mapping[int, str]) -> list[Reject]:
        """Return the rows that publishing leaves out."""
        key = self._columns[0]
        with self._written(receipts) as (connection, published):
            if published:
                return []
            statement = sql.SQL(
                'SELECT at, key FROM (SELECT "$row" AS at, {key}::text AS key, row_number() OVER '
                '(PARTITION BY {key} ORDER BY "$chunk" DESC, "$row" DESC) AS rank FROM {aside}) r '
                "WHERE rank > 1 ORDER BY at"
            ).format(key=sql.Identifier(key.identifier), aside=self._beside())
            found = connection.execute(statement).fetchall()
        return [Reject(at, text, key.name, DUPLICATE) for at, text in found]

    @contextmanager
    def _written(self, receipts: Mapping[int, str]) -> Iterator[tuple[psycopg.Connection, bool]]:
        """Open a transaction on the recorded chunks; tell whether they are already published."""
        with self._session() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (self._aside,))
            self._find(connection)
            comment = self._comment(connection)
            if comment is None:
                raise SinkUnavailable(
                    f"{self._spec.table}: the rows that the run wrote no longer exist"
                )
            published = comment.get("published") == marked(receipts)
            if not published:
                self._keep_only(connection, receipts)
            yield connection, published

    def publish(self, receipts: Mapping[int, str]) -> None:
        """Move the rows to the user's table, in one transaction."""
        mark = marked(receipts)
        with self._written(receipts) as (connection, published):
            if published:
                return
            if self._spec.write == "Replace":
                self._run(connection, "DELETE FROM {into}")
            statement, expected = self._move(connection)
            taken = self._run(connection, statement).rowcount
            self._check_taken(connection, taken, expected)
            self._if_unlocked(connection, "TRUNCATE {aside}")
            self._note(connection, {"writing": self._spec.table, "published": mark})

    def discard(self) -> None:
        """Delete what the run wrote."""
        with self._session() as connection, connection.transaction():
            self._find(connection)
            self._run(connection, "DROP TABLE IF EXISTS {aside}")

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    # ------------------------------------------------------------ chunks

    def copy(self, number: int, attempt: int, predictions: Predictions) -> None:
        """Copy rows into the staging table, durably on return."""
        count = len(predictions)
        outputs = [predictions.columns[column.name] for column in self._columns[1:]]
        tags = [np.full(count, number), np.full(count, attempt), predictions.rows]
        whole: list[Keys] = [*tags, predictions.keys, *outputs]
        into = sql.SQL("COPY {} FROM STDIN BINARY").format(self._beside())
        with (
            self._session() as connection,
            connection.cursor() as cursor,
            cursor.copy(into) as copy,
        ):
            copy.write(pgcopy.HEADER)
            copy.write(self._packer.pack(whole))
            copy.write(pgcopy.TRAILER)

    def forget(self, number: int, attempt: int) -> None:
        """Delete the rows of one attempt at a chunk."""
        with self._session() as connection, connection.transaction():
            connection.execute(
                sql.SQL('DELETE FROM {} WHERE "$chunk" = %s AND "$attempt" = %s').format(
                    self._beside()
                ),
                (number, attempt),
            )

    # ------------------------------------------------------------ statements

    def _move(self, connection: psycopg.Connection) -> tuple[str, int]:
        """Return the statement that moves the rows over, and the number of rows it must move."""
        found, counted = "SELECT {outputs} FROM {aside}", "SELECT count(*) FROM {aside}"
        twice = sql.SQL("SELECT FROM {} GROUP BY {} HAVING count(*) > 1 LIMIT 1").format(
            self._beside(), sql.Identifier(self._columns[0].identifier)
        )
        if connection.execute(twice).fetchone() is not None:
            found = (
                "SELECT {outputs} FROM (SELECT DISTINCT ON ({key}) * FROM {aside} "
                'ORDER BY {key}, "$chunk" DESC, "$row" DESC) AS last'
            )
            counted = "SELECT count(DISTINCT {key}) FROM {aside}"
        conflict = ""
        if self._spec.write == "Upsert":
            conflict = " ON CONFLICT ({target_key}) DO UPDATE SET {updates}"
        ((expected,),) = self._run(connection, counted).fetchall()
        return f"INSERT INTO {{into}} ({{columns}}) {found}{conflict}", int(expected)

    def _check_taken(self, connection: psycopg.Connection, taken: int, expected: int) -> None:
        """Check that the table has all rows it was given, and no others if it was emptied.

        Raises:
            ConfigError: it does not; the transaction must be rolled back.

        """
        found = f"it accepted {taken} of {expected} rows"
        if taken == expected and self._spec.write == "Replace":
            ((there,),) = self._run(connection, "SELECT count(*) FROM {into}").fetchall()
            found = f"it holds {there} rows after they were replaced by {expected}"
            taken = int(there)
        if taken != expected:
            names = meddlers(connection, self._target)
            raise ConfigError(
                f"sink.table {self._spec.table}: {found}, without an error; nothing was published. "
                f"Remove what changes them ({names}), or publish into another table"
            )

    def _if_unlocked(self, connection: psycopg.Connection, statement: str, table: str = "") -> None:
        """Run a statement that can be skipped, unless another session holds a conflicting lock."""
        name = sql.Identifier(self._target[0], table or self._aside)
        with suppress(psycopg.errors.LockNotAvailable), connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{_ASIDE_LOCK_SECONDS}s'")
            connection.execute(sql.SQL(statement).format(aside=name))
        connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")

    def _run(self, connection: psycopg.Connection, statement: str) -> psycopg.Cursor:
        targets = [sql.Identifier(name) for name in self._into]
        return connection.execute(
            sql.SQL(statement).format(  # SQL of our own
                into=sql.Identifier(*self._target),
                aside=self._beside(),
                columns=sql.SQL(", ").join(targets),
                outputs=sql.SQL(", ").join(sql.Identifier(c.identifier) for c in self._columns),
                key=sql.Identifier(self._columns[0].identifier),
                target_key=targets[0],
                updates=sql.SQL(", ").join(
                    sql.SQL("{0} = EXCLUDED.{0}").format(name) for name in targets[1:]
                ),
            )
        )

    def _keep_only(self, connection: psycopg.Connection, receipts: Mapping[int, str]) -> None:
        """Delete the rows of unrecorded attempts, and check that all others are present."""
        parsed = {number: orjson.loads(text) for number, text in receipts.items()}
        attempts = [parsed[number]["attempt"] for number in parsed]
        connection.execute(
            sql.SQL(
                "DELETE FROM {} s WHERE NOT EXISTS (SELECT FROM unnest(%s::bigint[], %s::bigint[])"
                ' AS kept (number, attempt) WHERE kept.number = s."$chunk"'
                ' AND kept.attempt = s."$attempt")'
            ).format(self._beside()),
            (list(parsed), attempts),
        )
        count = sql.SQL("SELECT count(*) FROM {}").format(self._beside())
        found = connection.execute(count).fetchone()
        expected = sum(each["rows"] for each in parsed.values())
        if found is None or found[0] != expected:
            there = found[0] if found else 0
            raise SinkUnavailable(
                f"{self._spec.table}: the staging table holds {there} of the {expected} rows "
                "written"
            )

    # ------------------------------------------------------------ the staging table

    def _beside(self) -> sql.Composable:
        return sql.Identifier(self._target[0], self._aside)

    def _find(self, connection: psycopg.Connection) -> None:
        """Determine the schema, if the spec leaves it to the search path."""
        if len(self._target) == 1:
            query = (
                "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE c.oid = to_regclass(quote_ident(%s))"
            )
            found = connection.execute(query, (self._target[0],)).fetchone()
            if found is None:
                raise ConfigError(f"sink.table: there is no table {self._spec.table}")
            self._target = (found[0], self._target[0])

    def _comment(self, connection: psycopg.Connection) -> dict[str, Any] | None:
        """Return the note on the staging table; None if the table does not exist."""
        found = connection.execute(
            "SELECT obj_description(c.oid, 'pg_class') FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relname = %s AND c.relkind = 'r'",
            (self._target[0], self._aside),
        ).fetchone()
        return None if found is None else _noted(found[0])

    def _note(self, connection: psycopg.Connection, note: dict[str, Any]) -> None:
        found = connection.execute("SELECT extract(epoch FROM now())::bigint").fetchone()
        text = orjson.dumps({**note, "at": found[0] if found else 0}).decode()
        connection.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(self._beside(), sql.Literal(text))
        )

    def _sweep(self, connection: psycopg.Connection) -> None:
        """Remove the staging tables of earlier runs: published, or abandoned long ago."""
        found = connection.execute(
            "SELECT c.relname, obj_description(c.oid, 'pg_class'), "
            "extract(epoch FROM now())::bigint FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s "
            "AND c.relkind = 'r' AND c.relname ~ '^fourways_[0-9a-f]{24}$' "
            "AND c.relname <> %s AND pg_has_role(c.relowner, 'USAGE')",
            (self._target[0], self._aside),
        ).fetchall()
        for name, comment, now in found:
            note = _noted(comment)
            old = int(now) - int(note.get("at") or now) > LEFT_DAYS * 86_400
            if note.get("writing") == self._spec.table and ("published" in note or old):
                self._if_unlocked(connection, "DROP TABLE IF EXISTS {aside}", name)

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        with self._database.translated():
            if self._connection is None or self._connection.closed:
                self._connection = self._database.connect()
                self._connection.autocommit = True
                self._connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
            try:
                yield self._connection
            except psycopg.errors.LockNotAvailable:
                held = lock_holders(
                    self._connection, (self._target, (*self._target[:-1], self._aside))
                )
                raise SinkUnavailable(
                    f"{self._spec.table}: no lock was granted within {LOCK_SECONDS} s; {held}"
                ) from None


class TableChunk:
    """See :class:`.base.SinkChunk`."""

    def __init__(self, sink: PostgresTableSink, number: int, attempt: int) -> None:
        self._sink = sink
        self._number = number
        self._attempt = attempt
        self._rows = 0

    def write(self, predictions: Predictions) -> None:
        """Copy predictions into the staging table."""
        if not len(predictions):
            return
        self._sink.copy(self._number, self._attempt, predictions)
        self._rows += len(predictions)

    def finish(self) -> str:
        """Return a receipt for the rows: every COPY is already committed."""
        return orjson.dumps({"attempt": self._attempt, "rows": self._rows}).decode()

    def abandon(self) -> None:
        """Delete the rows."""
        # Publishing drops any that are left.
        with suppress(Exception):
            self._sink.forget(self._number, self._attempt)


def _noted(comment: str | None) -> dict[str, Any]:
    try:
        found = orjson.loads(comment or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
