"""Writes a stream's predictions to SQLite: one transaction per micro-batch, all or nothing.

The leadership of a stream is a lock on a file beside the database: the kernel releases it when its
holder dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.scoring.columns import Key, Predictions

from .. import layout
from ..past import PAST_ROW, past_chunks
from ..sqlite import cells, connect, quoted, sql_type, transaction, translated
from . import live
from .stream import DeadLetter, Fenced, Move, Position, QuestionAnswer, StreamDeclaration

_OURS = "namespace = ? AND deployment = ? AND source = ?"
_DECLARE = """
    INSERT INTO streams (namespace, deployment, source, version, digest, contract, table_name)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (namespace, deployment) DO UPDATE SET version = excluded.version,
        digest = excluded.digest, contract = excluded.contract, source = excluded.source,
        table_name = excluded.table_name, started_at = CURRENT_TIMESTAMP,
        revision = revision + (contract <> excluded.contract)"""
_MODEL = """
    INSERT INTO models (version, digest) VALUES (?, ?)
    ON CONFLICT (version, digest) DO UPDATE SET version = excluded.version RETURNING id"""
_ORPHANS = """
    SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'live_*'
    AND name NOT IN (SELECT table_name FROM streams)"""
_COUNT = f"""UPDATE positions SET tries = tries + 1
    WHERE {_OURS} AND partition = ? AND next = ? RETURNING tries"""  # noqa: S608
_FIRST = """INSERT INTO positions (namespace, deployment, source, partition, next, tries)
    VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT DO NOTHING RETURNING tries"""
_RELEASE = f"""UPDATE positions SET tries = tries - 1
    WHERE {_OURS} AND partition = ? AND next = ? AND tries > 0"""  # noqa: S608
_MOVE = f"""UPDATE positions SET next = ?, tries = ?
    WHERE {_OURS} AND partition = ? AND next = ?"""  # noqa: S608
_LETTER = """INSERT INTO dead_letters (namespace, deployment, source, partition, position, key,
    value, headers, attempts, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""

_ANSWERED = """
    INSERT INTO answers (namespace, deployment, model, computed_at, question, key, outputs)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, deployment, question) DO UPDATE
    SET key = excluded.key, outputs = excluded.outputs, model = excluded.model,
        computed_at = excluded.computed_at"""
_EXPIRED = "DELETE FROM answers WHERE namespace = ? AND deployment = ? AND computed_at < ?"
_FORGOTTEN = "DELETE FROM answers WHERE namespace = ? AND deployment = ? AND key = ?"
_PAST = PAST_ROW.replace("@", "")
_OTHER_PAST = """
    DELETE FROM past_predictions WHERE namespace = ? AND deployment = ? AND output IS NOT ?"""
_OTHER_ANSWERS = """
    DELETE FROM answers WHERE namespace = ? AND deployment = ? AND NOT EXISTS
    (SELECT 1 FROM streams WHERE namespace = ? AND deployment = ? AND table_name = ?)"""


class SqliteStream:
    """The store as a stream worker sees it; see :class:`.stream.StreamWriter`."""

    def __init__(self, path: Path, stream: StreamDeclaration) -> None:
        self._path = path
        self._stream = stream
        self._ours = (stream.namespace, stream.deployment, stream.source)
        self._columns = layout.columns(stream.contract)
        self._table = live.table_name(stream)
        self._kept_as = stream.compared.name if stream.compared else None
        self._lock: int | None = None
        self._model = 0
        names = [column.identifier for column in self._columns] + [live.COMPUTED_AT, live.MODEL]
        listed = ", ".join(map(quoted, names))
        updates = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names[1:])
        self._upsert = (
            f"INSERT INTO {quoted(self._table)} ({listed}) VALUES "  # noqa: S608
            f"({', '.join('?' * len(names))}) ON CONFLICT ({quoted(names[0])}) DO UPDATE "
            f"SET {updates}"
        )
        self._delete = f"DELETE FROM {quoted(self._table)} WHERE {quoted(names[0])} = ?"  # noqa: S608
        with translated(path):
            self._connection = connect(path)
            try:
                self._declare()
            except BaseException:
                self._connection.close()
                raise

    def positions(self, partitions: Mapping[int, int]) -> dict[int, Position]:
        """Return the positions of partitions, without counting an attempt."""
        with translated(self._path):
            if not self._still_ours():
                raise StoreUnavailable(
                    f"a worker with other outputs has taken over {self._stream.deployment}"
                )
            found = self._connection.execute(
                f"SELECT partition, next, tries FROM positions WHERE {_OURS}",  # noqa: S608
                self._ours,
            ).fetchall()
        stand = {partition: Position(at, attempts) for partition, at, attempts in found}
        return {p: stand.get(p) or Position(start, 0) for p, start in partitions.items()}

    def begin(self, held: Mapping[int, int]) -> dict[int, int]:
        """Durably count an attempt at the held positions; return the attempts by partition."""
        attempts = {}
        with self._all_or_nothing():
            for place in held.items():
                row = self._connection.execute(_COUNT, (*self._ours, *place)).fetchone()
                row = row or self._connection.execute(_FIRST, (*self._ours, *place)).fetchone()
                if row is None:
                    raise Fenced
                attempts[place[0]] = int(row[0])
        return attempts

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
        """Write predictions and dead letters and move the positions, in one transaction."""
        chosen = live.latest(predictions)
        outputs = self._columns[1:]
        values = [predictions.keys[chosen].tolist()]
        values += [cells(c, live.flat(c, predictions.columns[c.name][chosen])) for c in outputs]
        moment = datetime.now(UTC)
        now = moment.isoformat()
        values += [[now] * len(chosen), [self._model] * len(chosen)]
        stream = self._ours[:2]
        with self._all_or_nothing():
            if not self._still_ours():
                raise Fenced
            for move in moves:
                self._move(move, attempts)
            self._connection.executemany(self._delete, ((key,) for key in deleted))
            self._connection.executemany(self._upsert, zip(*values, strict=True))
            self._connection.executemany(_LETTER, (self._letter(letter) for letter in dead))
            self._connection.executemany(_FORGOTTEN, ((*stream, str(key)) for key in deleted))
            for chunk in past_chunks(self._stream.compared, predictions, deleted):
                kept = (*stream, self._kept_as, now, *chunk)
                self._connection.execute(_PAST, kept)
            if answered:
                expired = moment - timedelta(seconds=self._stream.freshness_seconds)
                self._connection.execute(_EXPIRED, (*stream, expired.isoformat()))
                common = (*stream, self._model, now)
                self._connection.executemany(
                    _ANSWERED, ((*common, a.question, a.key, a.outputs) for a in answered)
                )

    def receive(self) -> None:
        """Return at once: what was sent is already committed."""

    def move(self, move: Move) -> None:
        """Move one position without events."""
        with self._all_or_nothing():
            self._move(move, 0)

    def ping(self) -> None:
        """Read from the file."""
        with translated(self._path):
            self._connection.execute("SELECT 1 FROM schema_version").fetchall()

    def release(self, held: Mapping[int, int]) -> None:
        """Take back the attempt counted for partitions over which no worker died."""
        with self._all_or_nothing():
            self._connection.executemany(
                _RELEASE, [(*self._ours, *place) for place in held.items()]
            )

    def lead(self) -> bool:
        """Acquire or keep the leadership of this stream."""
        if self._lock is None:
            identity = hashlib.sha256("\0".join(self._ours).encode()).hexdigest()[:16]
            file = self._path.with_name(f"{self._path.name}-lead-{identity}")
            try:
                handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                why = f"the prediction store {self._path.name}: {error.strerror}"
                raise StoreUnavailable(why) from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
                return False
            self._lock = handle
        return True

    def close(self) -> None:
        """Close the file and release the leadership."""
        self._connection.close()
        if self._lock is not None:
            with suppress(OSError):
                os.close(self._lock)
            self._lock = None

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        with translated(self._path), transaction(self._connection):
            yield

    def _move(self, move: Move, attempts: int) -> None:
        values = (move.end, attempts, *self._ours, move.partition, move.start)
        if self._connection.execute(_MOVE, values).rowcount != 1:
            raise Fenced

    def _still_ours(self) -> bool:
        row = self._connection.execute(
            "SELECT table_name FROM streams WHERE namespace = ? AND deployment = ?", self._ours[:2]
        ).fetchone()
        return bool(row and row[0] == self._table)

    def _declare(self) -> None:
        stream, connection = self._stream, self._connection
        key = self._columns[0]
        defined = ", ".join(
            f"{quoted(c.identifier)} {sql_type(c)} NOT NULL{' PRIMARY KEY' if c is key else ''}"
            for c in self._columns
        )
        with transaction(connection):
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {quoted(self._table)} ({defined}, "
                f"{quoted(live.COMPUTED_AT)} TEXT NOT NULL, {quoted(live.MODEL)} INTEGER NOT NULL)"
            )
            model = (stream.version, stream.digest)
            contract = layout.dump_contract(stream.contract)
            connection.execute(_OTHER_ANSWERS, (*self._ours[:2], *self._ours[:2], self._table))
            connection.execute(_OTHER_PAST, (*self._ours[:2], self._kept_as))
            connection.execute(_DECLARE, (*self._ours, *model, contract, self._table))
            (self._model,) = connection.execute(_MODEL, model).fetchone()
            for (name,) in connection.execute(_ORPHANS).fetchall():
                connection.execute(f"DROP TABLE {quoted(name)}")

    def _letter(self, letter: DeadLetter) -> tuple[object, ...]:
        return (
            *self._ours,
            letter.partition,
            letter.position,
            letter.key,
            letter.value,
            live.headers_text(letter),
            letter.attempts,
            live.storable(letter.reason),
        )
