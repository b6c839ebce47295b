"""Writes a stream's predictions to PostgreSQL: one statement per micro-batch.

The statement moves the positions, upserts the predictions and adds the dead letters. If it could
not move every position, it divides by zero, and none of it takes effect. Its parameters are arrays
in binary format, expanded by ``unnest``: the client does nothing row by row. A statement is sent
before the previous one is answered, so the server proceeds without waiting for the client.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import psycopg
from psycopg import sql
from psycopg.pq.abc import PGresult

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.postgres import arrays as pgarray
from fourways_runtime.io.postgres import copy_in as pgcopy
from fourways_runtime.io.postgres.connection import conninfo, explain, lock_number, translated
from fourways_runtime.io.postgres.pipelined import Line
from fourways_runtime.io.table_columns import TableColumn
from fourways_runtime.scoring.columns import Key, Predictions

from .. import layout
from ..postgres_schema import ensure_schema
from . import live
from .stream import DeadLetter, Fenced, Move, Position, StreamDeclaration

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30
"""Statement time-out: a longer statement may wait for a lock that is never released."""

_log = logging.getLogger(__name__)

_OURS = "namespace = {namespace} AND deployment = {deployment} AND source = {source}"
# Not 1/0: a constant would fail when the statement is planned.
_ALL_OF = "1 / (CASE WHEN (SELECT count(*) FROM {which}) = cardinality($1) THEN 1 ELSE 0 END)"
_DECLARE = """
    INSERT INTO fourways.streams AS s (namespace, deployment, version, digest, contract, source,
        table_name) VALUES ({namespace}, {deployment}, %s, %s, %s, {source}, {name})
    ON CONFLICT (namespace, deployment) DO UPDATE SET version = excluded.version,
        digest = excluded.digest, contract = excluded.contract, source = excluded.source,
        table_name = excluded.table_name, started_at = now(),
        revision = s.revision + (s.contract <> excluded.contract)::integer"""
_MODEL = """
    INSERT INTO fourways.models AS m (version, digest) VALUES (%s, %s)
    ON CONFLICT (version, digest) DO UPDATE SET version = m.version RETURNING id"""
_ORPHANS = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'fourways' AND c.relkind = 'r' AND c.relname ~ '^live_[0-9a-f]{24}$'
    AND NOT EXISTS (SELECT FROM fourways.streams s WHERE s.table_name = c.relname)"""
_STILL_OURS = """SELECT FROM fourways.streams s WHERE s.namespace = {namespace}
    AND s.deployment = {deployment} AND s.table_name = {name}"""
_POSITIONS = f"SELECT partition, next, tries FROM fourways.positions WHERE {_OURS}"  # noqa: S608
_BEGIN = f"""
    WITH begun AS (
        INSERT INTO fourways.positions AS p (namespace, deployment, source, partition, next, tries)
        SELECT {{namespace}}, {{deployment}}, {{source}}, held.partition, held.next, 1
        FROM unnest($1::integer[], $2::bigint[]) AS held (partition, next)
        ON CONFLICT (namespace, deployment, source, partition)
        DO UPDATE SET tries = p.tries + 1 WHERE p.next = excluded.next
        RETURNING p.partition, p.tries)
    SELECT partition, tries, {_ALL_OF.format(which="begun")} FROM begun
    UNION ALL SELECT -1, 0, {_ALL_OF.format(which="begun")}"""  # noqa: S608
_RELEASE = f"""
    UPDATE fourways.positions p SET tries = p.tries - 1
    FROM unnest($1::integer[], $2::bigint[]) AS held (partition, next)
    WHERE {_OURS} AND p.partition = held.partition AND p.next = held.next
    AND p.tries > 0"""  # noqa: S608
_MOVED = f"""
    WITH moved AS (
        UPDATE fourways.positions p SET next = move.stop, tries = $4::integer
        FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS move (partition, start, stop)
        WHERE {_OURS} AND p.partition = move.partition AND p.next = move.start
        AND EXISTS ({_STILL_OURS})
        RETURNING 1)"""  # noqa: S608
_LETTERS = """,
    letters AS (
        INSERT INTO fourways.dead_letters (namespace, deployment, source, partition, position, key,
            value, headers, attempts, reason)
        SELECT {namespace}, {deployment}, {source}, dead.* FROM unnest($5::integer[], $6::bigint[],
            $7::bytea[], $8::bytea[], $9::text[], $10::integer[], $11::text[]) AS dead
        ON CONFLICT DO NOTHING)"""
_ANSWERS = """,
    answers AS (
        INSERT INTO {table} AS live ({columns}, {computed_at}, {model})
        SELECT {values}, now(), {id}::integer FROM unnest({arrays}) WITH ORDINALITY AS row ({names})
        ON CONFLICT ({key}) DO UPDATE SET {updates})"""
_DELETED = ", deleted AS (DELETE FROM {table} WHERE {key} = ANY({keys}))"
_MOVE_ALL = f" SELECT {_ALL_OF.format(which='moved')}"
_LETTER_PARAMETERS = 7


class PostgresStream:
    """The store as a stream worker sees it; see :class:`.stream.StreamWriter`."""

    def __init__(self, uri: Callable[[], str], stream: StreamDeclaration) -> None:
        self._read_uri = uri
        self._uri = ""
        self._stream = stream
        self._columns = layout.columns(stream.contract)
        self._table = live.table_name(stream)
        self._known: dict[str, sql.Composable] = {
            "namespace": sql.Literal(stream.namespace),
            "deployment": sql.Literal(stream.deployment),
            "source": sql.Literal(stream.source),
            "name": sql.Literal(self._table),
        }
        self._line: Line | None = None
        self._come: deque[Exception | None] = deque()
        """Outcomes that arrived and have not been returned yet."""

        self._leading = False
        self._model = 0
        with self._connected():
            pass

    def positions(self, partitions: Mapping[int, int]) -> dict[int, Position]:
        """Return the positions of partitions, without counting an attempt."""
        with self._connected() as line:
            connection = line.free()
            if not connection.execute(self._sql(_STILL_OURS)).fetchall():
                raise StoreUnavailable(
                    f"a worker with other outputs has taken over {self._stream.deployment}"
                )
            found = connection.execute(self._sql(_POSITIONS)).fetchall()
        stand = {partition: Position(at, attempts) for partition, at, attempts in found}
        return {p: stand.get(p) or Position(start, 0) for p, start in partitions.items()}

    def begin(self, held: Mapping[int, int]) -> dict[int, int]:
        """Durably count an attempt at the held positions; return the attempts by partition."""
        with self._connected() as line:
            result = self._ask(line, b"begin", _BEGIN, _held(held))
            return {
                int(result.get_value(row, 0) or b""): int(result.get_value(row, 1) or b"")
                for row in range(result.ntuples - 1)
            }

    def send(
        self,
        moves: Sequence[Move],
        predictions: Predictions,
        dead: Sequence[DeadLetter] = (),
        deleted: Sequence[Key] = (),
        *,
        attempts: int = 1,
    ) -> None:
        """Send the statement that writes predictions and dead letters and moves the positions."""
        values = _moves(moves, attempts)
        if dead:
            values += _letters(dead)
        if len(predictions):
            values += self._answers(predictions)
        if deleted:
            values.append(self._keys(deleted))
        parts = (bool(dead), bool(len(predictions)), bool(deleted))
        name = b"commit%d%d%d" % parts
        with self._translated():
            line = self._opened()
            if not line.knows(name):
                self._settle(line)
                line.prepare(name, self._statement(*parts))
            line.send(name, values)

    def receive(self) -> None:
        """Wait until the oldest statement sent is committed."""
        with self._translated():
            if self._come:
                outcome = self._come.popleft()
            else:
                assert self._line is not None, "nothing was sent"  # noqa: S101
                outcome = self._line.receive()
            if outcome is not None:
                raise outcome

    def move(self, move: Move) -> None:
        """Move one position without events."""
        values = _moves([move], 0)
        with self._connected() as line:
            name = b"commit000"
            if not line.knows(name):
                line.prepare(name, self._statement(False, False, False))
            line.ask(name, values)

    def ping(self) -> None:
        """Run an empty query on the server."""
        with self._connected() as line:
            line.free().execute("SELECT 1")

    def release(self, held: Mapping[int, int]) -> None:
        """Take back the attempt counted for partitions over which no worker died."""
        with self._connected() as line:
            self._ask(line, b"release", _RELEASE, _held(held))

    def lead(self) -> bool:
        """Acquire or keep the leadership of this stream."""
        stream = self._stream
        with self._connected() as line:
            connection = line.free()
            if self._leading:
                connection.execute("SELECT 1")
                return True
            lock = lock_number("lead", stream.namespace, stream.deployment, stream.source)
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (lock,)).fetchone()
            self._leading = bool(row and row[0])
            return self._leading

    def close(self) -> None:
        """Close the connection."""
        if self._line is not None:
            with suppress(psycopg.Error):
                self._line.connection.close()
            self._come.extend([_broke()] * self._line.under_way)
            self._line = None

    @contextmanager
    def _connected(self) -> Iterator[Line]:
        """Yield the connection, reopened if it broke, with no statement in flight."""
        with self._translated():
            line = self._opened()
            self._settle(line)
            yield line

    def _opened(self) -> Line:
        if self._line is None or self._line.connection.closed:
            self.close()
            self._line = Line(self._connect())
        return self._line

    def _settle(self, line: Line) -> None:
        """Wait for all statements in flight, and keep their outcomes."""
        while line.under_way:
            try:
                self._come.append(line.receive())
            except psycopg.Error:
                self._come.append(_broke())
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate external errors into ours; a connection that had one is not used again."""
        try:
            with translated(self._uri):
                yield
        except psycopg.errors.DivisionByZero:
            raise Fenced from None
        except psycopg.errors.UndefinedTable:
            raise Fenced from None  # Our table was dropped: `positions` finds out by whom.
        except StoreUnavailable:
            self.close()
            raise

    def _connect(self) -> psycopg.Connection:
        self._leading = False
        self._uri = self._read_uri()  # Read each time, so that a rotated Secret needs no restart.
        with translated(self._uri):
            return self._prepared(conninfo(self._uri, CONNECT_SECONDS))

    def _prepared(self, address: str) -> psycopg.Connection:
        connection = psycopg.connect(address, autocommit=True)
        try:
            connection.execute(
                sql.SQL("SET statement_timeout = {}").format(sql.Literal(STATEMENT_SECONDS * 1000))
            )
            ensure_schema(connection)
            if not self._model:
                self._declare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _declare(self, connection: psycopg.Connection) -> None:
        stream = self._stream
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number("streams"),))
            connection.execute(self._create())
            told = (stream.version, stream.digest)
            connection.execute(self._sql(_DECLARE), (*told, layout.dump_contract(stream.contract)))
            row = connection.execute(_MODEL, told).fetchone()
        self._model = int(row[0]) if row else 0
        try:
            with connection.transaction():
                # An active worker holds its old table for a moment; the next worker tries again.
                connection.execute("SET LOCAL lock_timeout = '1s'")
                for (name,) in connection.execute(_ORPHANS).fetchall():
                    table = sql.Identifier("fourways", name)
                    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        except psycopg.Error as error:
            _log.warning("old live tables were not dropped: %s", explain(error, self._uri))

    def _create(self) -> sql.Composed:
        key = self._columns[0]
        defined = [
            sql.SQL("{} {} NOT NULL{}").format(
                sql.Identifier(column.identifier),
                sql.SQL(_stored(column)),
                # Bytewise order: such an index survives a collation upgrade.
                sql.SQL(' COLLATE "C"' if column is key and column.kind == "string" else ""),
            )
            for column in self._columns
        ]
        return sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} ({}, {} timestamptz NOT NULL, {} integer NOT NULL, "
            "PRIMARY KEY ({})) WITH (fillfactor = 80)"
        ).format(
            sql.Identifier("fourways", self._table),
            sql.SQL(", ").join(defined),
            sql.Identifier(live.COMPUTED_AT),
            sql.Identifier(live.MODEL),
            sql.Identifier(key.identifier),
        )

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(**self._known)

    def _statement(self, letters: bool, answers: bool, deleted: bool) -> sql.Composed:
        parts = [self._sql(_MOVED)]
        parts += [self._sql(_LETTERS)] if letters else []
        first = 5 + _LETTER_PARAMETERS * letters
        parts += [self._upsert(first)] if answers else []
        parts += [self._gone(first + len(self._columns) * answers)] if deleted else []
        return sql.Composed([*parts, self._sql(_MOVE_ALL)])

    def _upsert(self, first: int) -> sql.Composed:
        """Return the upsert; parameters start at ``first``, plain columns before shaped ones."""
        plain = [column for column in self._columns if not column.shape]
        wide = [column for column in self._columns if column.shape]
        comma = sql.SQL(", ")
        arrays = [f"${first + at}::{pgcopy.TYPES[c.kind].sql}[]" for at, c in enumerate(plain)]
        values: list[sql.Composable] = [sql.Identifier("row", f"c{at}") for at in range(len(plain))]
        for at, column in enumerate(wide, first + len(plain)):
            kind, size = pgcopy.TYPES[column.kind].sql, math.prod(column.shape)
            cut = f"(${at}::{kind}[])[(row.n - 1) * {size} + 1 : row.n * {size}]"
            values.append(sql.SQL(cut))
        key, *outputs = [sql.Identifier(column.identifier) for column in (*plain, *wide)]
        system = [sql.Identifier(live.COMPUTED_AT), sql.Identifier(live.MODEL)]
        return sql.SQL(_ANSWERS).format(
            table=sql.Identifier("fourways", self._table),
            columns=comma.join([key, *outputs]),
            computed_at=system[0],
            model=system[1],
            values=comma.join(values),
            id=sql.Literal(self._model),
            arrays=sql.SQL(", ".join(arrays)),
            names=sql.SQL(", ".join([*(f"c{at}" for at in range(len(plain))), "n"])),
            key=key,
            updates=comma.join(
                sql.SQL("{} = excluded.{}").format(name, name) for name in (*outputs, *system)
            ),
        )

    def _gone(self, parameter: int) -> sql.Composed:
        key = self._columns[0]
        return sql.SQL(_DELETED).format(
            table=sql.Identifier("fourways", self._table),
            key=sql.Identifier(key.identifier),
            keys=sql.SQL(f"${parameter}::{pgcopy.TYPES[key.kind].sql}[]"),
        )

    def _keys(self, keys: Sequence[Key]) -> bytes:
        key = self._columns[0]
        array = np.empty(len(keys), np.int64 if key.kind == "int64" else object)
        array[:] = keys
        return pgarray.cells(key, array)

    def _answers(self, predictions: Predictions) -> list[bytes]:
        chosen = live.latest(predictions)
        key, *outputs = self._columns
        values = [pgarray.cells(key, predictions.keys[chosen])]
        for shaped in (False, True):
            values += [
                pgarray.cells(column, predictions.columns[column.name][chosen])
                for column in outputs
                if bool(column.shape) is shaped
            ]
        return values

    def _ask(self, line: Line, name: bytes, statement: str, values: Sequence[bytes]) -> PGresult:
        if not line.knows(name):
            line.prepare(name, self._sql(statement))
        return line.ask(name, values)


def _broke() -> StoreUnavailable:
    """Return the error for statements that were in flight: their outcome is unknown."""
    return StoreUnavailable("the prediction store: the connection was lost before the response")


def _moves(moves: Sequence[Move], attempts: int) -> list[bytes]:
    return [
        pgarray.numbers("int32", [move.partition for move in moves]),
        pgarray.numbers("int64", [move.start for move in moves]),
        pgarray.numbers("int64", [move.end for move in moves]),
        attempts.to_bytes(4, "big"),
    ]


def _held(held: Mapping[int, int]) -> list[bytes]:
    return [
        pgarray.numbers("int32", list(held)),
        pgarray.numbers("int64", list(held.values())),
    ]


def _letters(dead: Sequence[DeadLetter]) -> list[bytes]:
    return [
        pgarray.numbers("int32", [letter.partition for letter in dead]),
        pgarray.numbers("int64", [letter.position for letter in dead]),
        pgarray.blobs(letter.key for letter in dead),
        pgarray.blobs(letter.value for letter in dead),
        pgarray.texts([live.headers_text(letter) for letter in dead]),
        pgarray.numbers("int32", [letter.attempts for letter in dead]),
        pgarray.texts([live.storable(letter.reason) for letter in dead]),
    ]


def _stored(column: TableColumn) -> str:
    return pgcopy.TYPES[column.kind].sql + ("[]" if column.shape else "")
