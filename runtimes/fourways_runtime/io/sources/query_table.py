"""Rows of a PostgreSQL query, by binary COPY: the server streams, and memory use stays constant.

Without ``splitBy`` one worker reads all rows in one statement: one snapshot, in the query's own
order. With it, workers share ranges of that column, each with its own statement and therefore its
own snapshot: a snapshot cannot be shared among pods and attempts. The guarantee is then: a row
whose ``splitBy`` does not change is read exactly once if it exists throughout the run; rows added
beyond the highest value at the start of the run belong to the next run. Omit ``splitBy`` if all
rows must come from one snapshot.

Sessions are read-only and end with a rollback, and the query is one statement
(:mod:`..postgres.user_query`). Columns and types are checked before the first row, and again by
each worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import IsolationLevel, pq, sql
from psycopg.postgres import types as pg_types

from fourways_api import Contract, FetchPolicy, Paths
from fourways_api.modes import SourceQuery
from fourways_runtime.errors import FetchFailed, SourceError
from fourways_runtime.retry import retry_until_available
from fourways_runtime.scoring.splits import Newer, Section, Split
from fourways_runtime.scoring.times import is_time

from ..postgres.copy_out import FIXED, HEADER_BYTES, TRAILER, Column, Unpacker
from ..postgres.user_database import UserDatabase
from ..postgres.user_query import UserQuery
from . import BATCH_BYTES, rows_at_once
from .base import SPLIT_ROWS, Chunk, check_more, check_names, wanted
from .key_ranges import KeyRange, cut
from .watermarks import NUMBER, TEXT, TIME, ZONED, why_incomparable

WHERE = "the source's query"
CONNECT_SECONDS = 3.0
"""How long a database that does not answer is tried again."""

RETRY_SECONDS = 1.0
_WHOLE = frozenset({"int2", "int4", "int8"})
_NUMBERS = _WHOLE | {"float4", "float8", "numeric"}
_TEXTS = frozenset({"text", "varchar", "bpchar", "name", "char", "uuid", "citext"})
_TIMES = {"date": TIME, "timestamp": TIME, "timestamptz": ZONED}


class QueryTable:
    """See :class:`.base.Table`."""

    def __init__(
        self,
        query: SourceQuery,
        contract: Contract,
        paths: Paths,
        more: tuple[str, ...] = (),
        batch_bytes: int = BATCH_BYTES,
        policy: FetchPolicy = FetchPolicy(),  # noqa: B008  (frozen)
    ) -> None:
        self.total_rows: int | None = None
        self._contract = contract
        self._more = more
        self._kinds: dict[str, str] = {}
        """The kind of the values of each watermark column."""

        self._limits = rows_at_once(contract, batch_bytes), batch_bytes
        self._names = tuple(dict.fromkeys((*wanted(contract), *more)))
        self._split_by = query.split_by
        self._query = UserQuery(query.sql, WHERE)
        self._database = UserDatabase(
            query.database,
            paths,
            "the source database",
            unavailable=FetchFailed,
            refused=SourceError,
            writes=False,
            policy=policy,
        )
        self._connection: psycopg.Connection | None = None

    def splits(self, rows: int) -> list[Split]:
        """Cut the rows into ranges of ``splitBy``, of about ``rows`` rows each."""
        with self._snapshot() as connection:
            types = self._described(connection)
            mark = _fingerprint(types)
            if self._split_by is None:
                return [Split(0, WHERE, {}, None, mark, 0)]
            ranges = cut(connection, self._query, self._split_by, rows)
        self.total_rows = sum(each.rows for each in ranges)
        found = []
        first = 0
        for at, each in enumerate(ranges):
            shown = f"{WHERE}, {each.describe(self._split_by)}"
            found.append(Split(at, shown, each.detail(), each.rows, mark))
            first += each.rows
        return found

    def read(self, split: Split, newer: Newer | None = None) -> Iterator[Chunk]:
        """Read the rows of a range."""
        with self._snapshot() as connection:
            types = self._described(connection)
            if _fingerprint(types) != split.fingerprint:
                raise SourceError(f"{split.file}: changed while it was read: {_diff(types, split)}")
            columns = [Column(name, self._sent(types[name])) for name in self._names]
            copy = self._statement(columns, types, split, newer)
            statement = self._query.checked(connection, copy)
            position = split.start
            for batch in _batches(connection, statement, Unpacker(columns), *self._limits):
                yield Chunk(batch, np.arange(position, position + batch.num_rows))
                position += batch.num_rows

    def why_incomparable(self, newer: Newer) -> str | None:
        """See :class:`.base.Table`."""
        return why_incomparable(newer.column, self._kinds.get(newer.column), newer.value)

    def sections(self, split: Split) -> Iterator[Section]:
        """Return the part unchanged: rows must be read to be compared."""
        yield Section(split)

    def chunks(self) -> Iterator[Chunk]:
        """Read the table from its start, in order."""
        for split in self.splits(SPLIT_ROWS):
            yield from self.read(split)

    # ------------------------------------------------------------ the connection

    @contextmanager
    def _snapshot(self) -> Iterator[psycopg.Connection]:
        connection = self._connected()
        try:
            with self._database.translated(), connection.transaction(force_rollback=True):
                yield connection
        except BaseException:
            connection.close()
            raise

    def _connected(self) -> psycopg.Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = retry_until_available(
            self._database.connect, CONNECT_SECONDS, pause=RETRY_SECONDS
        )
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        self._connection = connection
        return connection

    # ------------------------------------------------------------ columns

    def _described(self, connection: psycopg.Connection) -> dict[str, str]:
        """Return the type of each required column, checked against the contract."""
        every = sql.SQL("SELECT * {} LIMIT 0").format(self._query.source)
        cursor = self._query.rows(connection, every)
        described = cursor.description or []
        names = [column.name for column in described]
        check_names(self._contract, names, WHERE)
        check_more(self._more, names, WHERE)
        by_name = {column.name: _type(column.type_code) for column in described}
        key = self._contract.entity_key
        fields = [
            (key.name, key.type, ()),
            *((f.name, f.type, f.shape) for f in self._contract.flat_inputs),
        ]
        for name, kind, shape in fields:
            if not _fits(kind, shape, by_name[name]):
                says = kind + (f" of shape {list(shape)}" if shape else "")
                raise SourceError(
                    f"{WHERE}: column {name} is {by_name[name]}, the contract says {says}; "
                    "change the contract, or convert the column"
                )
        for name in self._more:
            ordered = _kind(by_name[name])
            if ordered is None:
                raise SourceError(
                    f"{WHERE}: column {name} is {by_name[name]}, which cannot be a watermark; "
                    "convert it to bigint, double precision, text or a time"
                )
            self._kinds[name] = ordered
        by = self._split_by
        if by is not None and by_name.get(by) not in _WHOLE:
            was = f"is {by_name[by]}" if by in by_name else "is missing"
            raise SourceError(f"{WHERE}: column {by} {was}; splitBy needs a whole number")
        kept = (*self._names, *((by,) if by is not None else ()))
        return {name: by_name[name] for name in kept}

    @staticmethod
    def _sent(kind: str) -> str:
        """Return the type in which a column is sent; numeric as text, so that no digit is lost."""
        return kind if kind in FIXED else "text"

    def _statement(
        self, columns: list[Column], types: dict[str, str], split: Split, newer: Newer | None
    ) -> sql.Composed:
        listed = sql.SQL(", ").join(_selected(column, types[column.name]) for column in columns)
        conditions: list[sql.Composable] = []
        order: sql.Composable = sql.SQL("")
        if split.detail and self._split_by is not None:
            by = sql.Identifier("q", self._split_by)
            key = sql.Identifier("q", self._contract.entity_key.name)
            conditions.append(KeyRange.of(split.detail).condition(by, key))
            order = sql.SQL(" ORDER BY {}").format(by)
        if newer is not None:
            conditions.append(_not_older(newer, types[newer.column]))
        where = (
            sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("")
        )
        return sql.SQL("COPY (SELECT {} {}{}{}) TO STDOUT (FORMAT binary)").format(
            listed, self._query.source, where, order
        )


def _batches(
    connection: psycopg.Connection,
    statement: bytes,
    unpacker: Unpacker,
    most_rows: int,
    most_bytes: int,
) -> Iterator[pa.RecordBatch]:
    """Run a COPY and decode its rows at the level of libpq: a cursor costs 4 µs per row."""
    server = connection.pgconn
    try:
        _expect(server.exec_params(statement, None), pq.ExecStatus.COPY_OUT)
        rows: list[Any] = []
        skipped, held = HEADER_BYTES, 0
        while True:
            size, message = server.get_copy_data(0)
            if size < 0:
                break
            if skipped:
                message, skipped = message[skipped:], 0
            if len(message) > len(TRAILER):  # neither the end nor the header alone
                rows.append(message)
                held += len(message)
            if len(rows) == most_rows or held > most_bytes:
                yield unpacker.unpack(rows)
                rows, held = [], 0
        result = server.get_result()
        while result is not None:
            _expect(result, pq.ExecStatus.COMMAND_OK)
            result = server.get_result()
    except BaseException:
        connection.close()  # Rows may still be in flight.
        raise
    if rows:
        yield unpacker.unpack(rows)


def _expect(result: pq.abc.PGresult, status: int) -> None:
    if result.status != status:
        raise psycopg.errors.error_from_result(result)


def _type(oid: int) -> str:
    found = pg_types.get(oid)
    if found is None:
        return "text"  # an enum's values are text
    return f"{found.name}[]" if found.array_oid == oid else found.name


def _kind(found: str) -> str | None:
    """Return the kind of a column's values; None if the column cannot be a watermark."""
    if found in _NUMBERS - {"numeric"}:
        return NUMBER
    return TEXT if found in _TEXTS else _TIMES.get(found)


def _fits(kind: str, shape: tuple[int, ...], found: str) -> bool:
    element, listed = found.removesuffix("[]"), found.endswith("[]")
    if shape and element in ("json", "jsonb") and not listed:
        return True
    if listed != bool(shape):
        return False
    if kind == "string":
        return element in _TEXTS
    if kind == "bytes":
        return found == "bytea"
    if is_time(kind):
        return element in _TIMES or element in _WHOLE or element in _TEXTS
    return element == "bool" if kind == "bool" else element in _NUMBERS


def _not_older(newer: Newer, kind: str) -> sql.Composed:
    """Return the condition for rows that are not older than a watermark.

    The watermark of texts is the highest by their bytes, as in files. In the database's own order
    it may not be, so a text is new if it is by either order.
    """
    condition = "{0} >= {1} OR {0} IS NULL"
    if kind in _TEXTS:
        bytewise = '{0}::text COLLATE "C" >= {1}'
        condition = f"{bytewise} OR {'{0} IS NULL' if kind == 'uuid' else condition}"
    # A text literal has no type of its own: PostgreSQL parses it as the column's type.
    return sql.SQL(f"({condition})").format(
        sql.Identifier("q", newer.column), sql.Literal(newer.value)
    )


def _selected(column: Column, kind: str) -> sql.Composed:
    name = sql.Identifier("q", column.name)
    if kind.removesuffix("[]") in _NUMBERS - _WHOLE and kind.endswith("[]"):
        # JSON has no NaN, which is a missing number.
        return sql.SQL("to_json(array_replace({}, 'NaN', NULL))::text").format(name)
    if kind.endswith("[]"):
        return sql.SQL("to_json({})::text").format(name)
    if kind in FIXED or kind == "bytea":
        return sql.SQL("{}").format(name)
    return sql.SQL("{}::text").format(name)


def _fingerprint(types: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in types.items())


def _diff(types: dict[str, str], split: Split) -> str:
    before = set(split.fingerprint.split(", "))
    now = set(_fingerprint(types).split(", "))
    return f"{', '.join(sorted(before - now))} is now {', '.join(sorted(now - before))}"[:300]
