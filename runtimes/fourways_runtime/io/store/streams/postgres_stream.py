"""Writes a stream's predictions to PostgreSQL: one statement per micro-batch.

The statement moves the positions, upserts the predictions and adds the dead letters. If it could
not move every position, it divides by zero, and none of it takes effect. Its parameters are arrays
in binary format, expanded by ``unnest``: the client does nothing row by row. A statement is sent
before the previous one is answered, so the server proceeds without waiting for the client.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import psycopg
from psycopg import sql
from psycopg.pq.abc import PGresult

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.postgres import arrays as pgarray
from fourways_runtime.io.postgres.connection import conninfo, explain, lock_number
from fourways_runtime.io.postgres.pipelined import Line
from fourways_runtime.io.postgres.store_locks import lock_waits_translated
from fourways_runtime.scoring.columns import Key, Predictions

from .. import layout
from ..past import PastChunk, past_chunks
from ..postgres_schema import ensure_schema
from . import live
from .postgres_statements import (
    BEGIN,
    DECLARE,
    MODEL,
    ORPHANS,
    OTHER_ANSWERS,
    OTHER_PAST,
    POSITIONS,
    RELEASE,
    STILL_OURS,
    StreamStatements,
)
from .stream import DeadLetter, Fenced, Move, Position, QuestionAnswer, StreamDeclaration

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30
"""Statement time-out."""

LOCK_SECONDS = 10
"""How long a statement waits for a lock; the error then names who holds it."""

_log = logging.getLogger(__name__)


class PostgresStream:
    """The store as a stream worker sees it; see :class:`.stream.StreamWriter`."""

    def __init__(self, uri: Callable[[], str], stream: StreamDeclaration) -> None:
        self._read_uri = uri
        self._uri = ""
        self._stream = stream
        self._columns = layout.columns(stream.contract)
        self._statements = StreamStatements(stream, self._columns)
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
            if not connection.execute(self._statements.filled(STILL_OURS)).fetchall():
                raise StoreUnavailable(
                    f"a worker with other outputs has taken over {self._stream.deployment}"
                )
            found = connection.execute(self._statements.filled(POSITIONS)).fetchall()
        stand = {partition: Position(at, attempts) for partition, at, attempts in found}
        return {p: stand.get(p) or Position(start, 0) for p, start in partitions.items()}

    def begin(self, held: Mapping[int, int]) -> dict[int, int]:
        """Durably count an attempt at the held positions; return the attempts by partition."""
        with self._connected() as line:
            result = self._ask(line, b"begin", BEGIN, _held(held))
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
        answered: Sequence[QuestionAnswer] = (),
        *,
        attempts: int = 1,
    ) -> None:
        """Send the statement that writes predictions and dead letters and moves the positions."""
        values = _moves(moves, attempts)
        if dead:
            values += _letters(dead)
        if len(predictions):
            values += self._answers(predictions)
        if answered:
            values += _answered(answered)
        if deleted:
            values.append(self._keys(deleted))
        past = past_chunks(self._stream.compared, predictions, deleted)
        if past:
            values += _past(past)
        parts = (bool(dead), bool(len(predictions)), bool(deleted), bool(answered), bool(past))
        name = b"commit%d%d%d%d%d" % parts
        with self._translated():
            line = self._opened()
            if not line.knows(name):
                self._settle(line)
                line.prepare(name, self._statements.write(*parts, self._model))
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
            name = b"commit00000"
            if not line.knows(name):
                line.prepare(
                    name, self._statements.write(False, False, False, False, False, self._model)
                )
            line.ask(name, values)

    def ping(self) -> None:
        """Run an empty query on the server."""
        with self._connected() as line:
            line.free().execute("SELECT 1")

    def release(self, held: Mapping[int, int]) -> None:
        """Take back the attempt counted for partitions over which no worker died."""
        with self._connected() as line:
            self._ask(line, b"release", RELEASE, _held(held))

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
            with lock_waits_translated(self._uri):
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
        with lock_waits_translated(self._uri):
            return self._prepared(conninfo(self._uri, CONNECT_SECONDS))

    def _prepared(self, address: str) -> psycopg.Connection:
        connection = psycopg.connect(address, autocommit=True)
        try:
            connection.execute(
                f"SET statement_timeout = '{STATEMENT_SECONDS}s'; "
                f"SET lock_timeout = '{LOCK_SECONDS}s'"
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
            connection.execute(self._statements.create())
            model = (stream.version, stream.digest)
            connection.execute(self._statements.filled(OTHER_ANSWERS))
            connection.execute(self._statements.filled(OTHER_PAST))
            connection.execute(
                self._statements.filled(DECLARE), (*model, layout.dump_contract(stream.contract))
            )
            row = connection.execute(MODEL, model).fetchone()
        self._model = int(row[0]) if row else 0
        try:
            with connection.transaction():
                # An active worker holds its old table for a moment; the next worker tries again.
                connection.execute("SET LOCAL lock_timeout = '1s'")
                for (name,) in connection.execute(ORPHANS).fetchall():
                    table = sql.Identifier("fourways", name)
                    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        except psycopg.Error as error:
            _log.warning("old live tables were not dropped: %s", explain(error, self._uri))

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
            line.prepare(name, self._statements.filled(statement))
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


def _answered(answers: Sequence[QuestionAnswer]) -> list[bytes]:
    return [
        pgarray.blobs(answer.question for answer in answers),
        pgarray.texts([answer.key for answer in answers]),
        pgarray.texts([answer.outputs for answer in answers]),
    ]


def _past(chunks: Sequence[PastChunk]) -> list[bytes]:
    return [
        pgarray.numbers("int32", [chunk.size for chunk in chunks]),
        pgarray.blobs(chunk.keys for chunk in chunks),
        pgarray.blobs(chunk.numbers for chunk in chunks),
        pgarray.blobs(chunk.texts for chunk in chunks),
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
