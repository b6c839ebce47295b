"""PostgreSQL as the writers of runs need it; see :class:`.database.Database`.

Owns the connection: COPY for rows, and session-level advisory locks for what lasts as long as a
worker. A broken connection is not repaired here: the caller must open the store again. What COPY
needs is loaded where rows are copied: a model server writes without it, and loads no Arrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any

import psycopg

from fourways_runtime.scoring.columns import Array, Keys, Reject

from ..postgres.connection import conninfo, lock_number
from ..postgres.store_locks import lock_waits_translated
from ..table_columns import TableColumn
from .database import Duplicates, TableMissing, quoted
from .postgres_schema import ensure_schema

CONNECT_SECONDS = 10.0
# Parallel workers cost more than they save when a million keys are sorted, and take CPU from
# queries; the memory limit avoids sorting on disk.
_INDEXING = (
    "SET LOCAL max_parallel_maintenance_workers = 0",
    "SELECT set_config('maintenance_work_mem', '128MB', true) "
    "WHERE pg_size_bytes(current_setting('maintenance_work_mem')) < 134217728",
)
_HELD = """
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND classid = %s AND objid = %s
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_RELATIONS = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'fourways' AND c.relkind IN ('r', 'v') AND c.relname ~ '^run_[0-9a-f]{24}'
    ORDER BY c.relkind DESC, c.relname"""


LOCK_SECONDS = 60
"""How long a statement waits for a lock on a table; the error then names who holds it."""


LISTING_SECONDS = 1800
"""The same for a lock that a worker may hold while it lists a source: one that hangs ends."""

RECORD_SECONDS = 10
"""How long the record of a chunk may wait for its COMMIT. A worker that hangs between the two would
keep the row locked, and no other could claim the chunk."""


class PostgresDatabase:
    """One connection."""

    streams = True
    layered = True
    exists_hashes = True

    def __init__(self, uri: str, *, made: bool = False, read_only: bool = False) -> None:
        """``made``: the tables are known to exist. ``read_only``: they are not created."""
        self._uri = uri
        with lock_waits_translated(uri):
            self._connection = psycopg.connect(conninfo(uri, CONNECT_SECONDS), autocommit=True)
            try:
                self._connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
                if read_only:
                    self._connection.execute("SET default_transaction_read_only = on")
                elif not made:
                    ensure_schema(self._connection)
            except BaseException:
                self._connection.close()
                raise

    def second(self) -> PostgresDatabase:
        """Open another connection to the same store."""
        return PostgresDatabase(self._uri, made=True)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        with self._translated():
            return self._connection.execute(_spelt(query), values).fetchall()

    def rows_within(
        self, seconds: float, query: str, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]] | None:
        """Run a statement and return its rows; None if it takes longer."""
        with self._translated():
            try:
                with self._connection.transaction():
                    self._connection.execute(f"SET LOCAL statement_timeout = {int(seconds * 1e3)}")
                    return self._connection.execute(_spelt(query), values).fetchall()
            except psycopg.errors.QueryCanceled:
                return None

    def change(self, query: str, values: Sequence[Any] = ()) -> int:
        """Run a statement and return the number of affected rows."""
        with self._translated():
            return self._connection.execute(_spelt(query), values).rowcount

    def transaction(self, lock: str = "") -> AbstractContextManager[None]:
        """Run a transaction."""
        return self._transaction(lock)

    @contextmanager
    def _transaction(self, lock: str) -> Iterator[None]:
        with self._translated(), self._connection.transaction():
            if lock:
                # Another worker may hold it for as long as it lists a large source.
                self._connection.execute(f"SET LOCAL lock_timeout = '{LISTING_SECONDS}s'")
                self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number(lock),))
                self._connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            yield

    def time(self, moment: datetime) -> Any:
        """Return a time in the format of its columns."""
        return moment

    def array(self, numbers: Array) -> Any:
        """Return integers in the format that statements take."""
        return numbers.tolist()

    def hold(self, lock: str) -> bool:
        """Take a lock that lasts as long as this connection."""
        ((taken,),) = self.rows("SELECT pg_try_advisory_lock(?)", (lock_number(lock),))
        return bool(taken)

    def let_go(self, lock: str) -> None:
        """Release a lock."""
        self.rows("SELECT pg_advisory_unlock(?)", (lock_number(lock),))

    def held(self, lock: str) -> bool:
        """Tell whether any connection holds a lock."""
        number = lock_number(lock) % 2**64
        with self._translated():
            found = self._connection.execute(_HELD, (number >> 32, number % 2**32))
            return found.fetchone() is not None

    def create(self, table: str, columns: Sequence[TableColumn]) -> None:
        """Create a table."""
        defined = ", ".join(
            f"{quoted(column.identifier)} {_type(column, key=column is columns[0])} NOT NULL"
            for column in columns
        )
        self.change(f"CREATE TABLE @{quoted(table)} ({defined})")

    def index(self, table: str, key: str) -> None:
        """Index a table by a column."""
        for settings in _INDEXING:
            self.change(settings)
        self.change(
            f"CREATE UNIQUE INDEX {quoted(table + '_key')} ON @{quoted(table)} ({key}) "
            "WITH (fillfactor = 100)"
        )

    def appender(self, table: str, columns: Sequence[TableColumn]) -> Callable[[list[Keys]], None]:
        """Return a function that appends rows to a table."""
        from ..postgres import copy_in as pgcopy

        packer = pgcopy.Packer(columns)
        into = _spelt(f"COPY @{quoted(table)} FROM STDIN BINARY")

        def append(values: list[Keys]) -> None:
            with (
                self._translated(),
                self._connection.cursor() as cursor,
                cursor.copy(into) as copy,
            ):
                copy.write(pgcopy.HEADER)
                copy.write(packer.pack(values))
                copy.write(pgcopy.TRAILER)

        return append

    def append_rejects(self, run_id: int, rejects: list[Reject]) -> None:
        """Append rejects to a run."""
        into = "COPY fourways.rejects (run_id, position, key, field, reason) FROM STDIN"
        with (
            self._translated(),
            self._connection.cursor() as cursor,
            cursor.copy(into) as copy,
        ):
            for reject in rejects:
                texts = (reject.key, reject.field, reject.reason)
                copy.write_row((run_id, reject.row, *map(_storable, texts)))

    def blobs(self, query: str, values: Sequence[Any]) -> list[bytes]:
        """Return the single column of a query, in any order."""
        # In binary format: the text format uses two characters per byte.
        with self._translated(), self._connection.cursor(binary=True) as cursor:
            return [raw for (raw,) in cursor.execute(_spelt(query), values)]

    def relations(self) -> list[str]:
        """Return the names of all runs' tables and views, views first."""
        return [str(name) for (name,) in self.rows(_RELATIONS)]

    def drop(self, relation: str) -> None:
        """Drop a run's table or view."""
        kind = self.rows(
            "SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = 'fourways' AND c.relname = ?",
            (relation,),
        )
        if kind:
            with self._translated(), self._connection.transaction():
                # An active reader holds the table for a moment; a hung one must not block this
                # connection.
                self._connection.execute("SET LOCAL lock_timeout = '1s'")
                what = "VIEW" if kind[0][0] == "v" else "TABLE"
                self._connection.execute(_spelt(f"DROP {what} IF EXISTS @{quoted(relation)}"))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with lock_waits_translated(self._uri):
                yield
        except psycopg.errors.UniqueViolation:
            raise Duplicates from None
        except (psycopg.errors.UndefinedTable, psycopg.errors.ForeignKeyViolation):
            raise TableMissing from None


_BRIEF = (
    f"AND set_config('idle_in_transaction_session_timeout', '{RECORD_SECONDS}s', true) IS NOT NULL"
)


@lru_cache(maxsize=256)
def _spelt(query: str) -> bytes:
    """Return a statement as psycopg takes it. It consists only of our own names and keywords."""
    text = query.replace("%", "%%").replace("?", "%s").replace("@", "fourways.")
    text = text.replace(":each(%s)", "(SELECT unnest(%s::bigint[]))")
    text = text.replace(":brief", _BRIEF)
    text = text.replace(":now", "extract(epoch FROM clock_timestamp())::double precision")
    return text.replace(":skip", "FOR UPDATE SKIP LOCKED").replace(":rowid", "ctid").encode()


def _type(column: TableColumn, *, key: bool) -> str:
    from ..postgres import copy_in as pgcopy

    # Bytewise order: such an index avoids the cost of a collation and survives a collation upgrade.
    collated = key and column.kind == "string"
    return pgcopy.sql_type(column) + (' COLLATE "C"' if collated else "")


def _storable(text: str | None) -> str | None:
    """Return text that a database accepts: reasons quote values from the source."""
    if text is None:
        return None
    return text.replace("\0", "\\0").encode("utf-8", "replace").decode()
