"""The SQL with which a stream's positions, predictions and dead letters are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from psycopg import sql

from fourways_runtime.io.postgres import copy_in as pgcopy
from fourways_runtime.io.table_columns import TableColumn

from . import live
from .stream import StreamDeclaration

_OURS = "namespace = {namespace} AND deployment = {deployment} AND source = {source}"
# Not 1/0: a constant would fail when the statement is planned.
_ALL_OF = "1 / (CASE WHEN (SELECT count(*) FROM {which}) = cardinality($1) THEN 1 ELSE 0 END)"
DECLARE = """
    INSERT INTO fourways.streams AS s (namespace, deployment, version, digest, contract, source,
        table_name) VALUES ({namespace}, {deployment}, %s, %s, %s, {source}, {name})
    ON CONFLICT (namespace, deployment) DO UPDATE SET version = excluded.version,
        digest = excluded.digest, contract = excluded.contract, source = excluded.source,
        table_name = excluded.table_name, started_at = now(),
        revision = s.revision + (s.contract <> excluded.contract)::integer"""
MODEL = """
    INSERT INTO fourways.models AS m (version, digest) VALUES (%s, %s)
    ON CONFLICT (version, digest) DO UPDATE SET version = m.version RETURNING id"""
ORPHANS = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'fourways' AND c.relkind = 'r' AND c.relname ~ '^live_[0-9a-f]{24}$'
    AND NOT EXISTS (SELECT FROM fourways.streams s WHERE s.table_name = c.relname)"""
STILL_OURS = """SELECT FROM fourways.streams s WHERE s.namespace = {namespace}
    AND s.deployment = {deployment} AND s.table_name = {name}"""
POSITIONS = f"SELECT partition, next, tries FROM fourways.positions WHERE {_OURS}"  # noqa: S608
BEGIN = f"""
    WITH begun AS (
        INSERT INTO fourways.positions AS p (namespace, deployment, source, partition, next, tries)
        SELECT {{namespace}}, {{deployment}}, {{source}}, held.partition, held.next, 1
        FROM unnest($1::integer[], $2::bigint[]) AS held (partition, next)
        ON CONFLICT (namespace, deployment, source, partition)
        DO UPDATE SET tries = p.tries + 1 WHERE p.next = excluded.next
        RETURNING p.partition, p.tries)
    SELECT partition, tries, {_ALL_OF.format(which="begun")} FROM begun
    UNION ALL SELECT -1, 0, {_ALL_OF.format(which="begun")}"""  # noqa: S608
RELEASE = f"""
    UPDATE fourways.positions p SET tries = p.tries - 1
    FROM unnest($1::integer[], $2::bigint[]) AS held (partition, next)
    WHERE {_OURS} AND p.partition = held.partition AND p.next = held.next
    AND p.tries > 0"""  # noqa: S608
_MOVED = f"""
    WITH moved AS (
        UPDATE fourways.positions p SET next = move.stop, tries = $4::integer
        FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS move (partition, start, stop)
        WHERE {_OURS} AND p.partition = move.partition AND p.next = move.start
        AND EXISTS ({STILL_OURS})
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
# Expired rows go a bounded number at a time; those that another worker writes are left to it.
_ANSWERED = """,
    answered AS (
        INSERT INTO fourways.answers
            (namespace, deployment, question, key, outputs, model, computed_at)
        SELECT {namespace}, {deployment}, row.*, {id}::integer, now()
        FROM unnest({questions}, {keys}, {outputs}) AS row
        ON CONFLICT (namespace, deployment, question) DO UPDATE SET key = excluded.key,
            outputs = excluded.outputs, model = excluded.model, computed_at = excluded.computed_at),
    expired AS (
        DELETE FROM fourways.answers WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM fourways.answers
            WHERE namespace = {namespace} AND deployment = {deployment}
            AND computed_at < now() - make_interval(secs => {freshness})
            AND question <> ALL ({questions}) LIMIT 1000 FOR UPDATE SKIP LOCKED)))"""
_DELETED = """,
    deleted AS (DELETE FROM {table} WHERE {key} = ANY({keys})),
    forgotten AS (
        DELETE FROM fourways.answers WHERE namespace = {namespace} AND deployment = {deployment}
        AND key = ANY({keys}::text[]))"""
_PAST = """,
    past AS (
        INSERT INTO fourways.past_predictions
            (namespace, deployment, output, computed_at, size, keys, numbers, texts)
        SELECT {namespace}, {deployment}, {output}, now(), row.*
        FROM unnest({sizes}, {keys}, {numbers}, {texts}) AS row)"""
OTHER_PAST = """
    DELETE FROM fourways.past_predictions WHERE namespace = {namespace}
    AND deployment = {deployment} AND output IS DISTINCT FROM {output}"""
OTHER_ANSWERS = """
    DELETE FROM fourways.answers WHERE namespace = {namespace} AND deployment = {deployment}
    AND NOT EXISTS (SELECT FROM fourways.streams s WHERE s.namespace = {namespace}
        AND s.deployment = {deployment} AND s.table_name = {name})"""
_MOVE_ALL = f" SELECT {_ALL_OF.format(which='moved')}"
_LETTER_PARAMETERS = 7
_ANSWERED_PARAMETERS = 3


class StreamStatements:
    """The statements of one stream, whose predictions have these columns."""

    def __init__(self, stream: StreamDeclaration, columns: Sequence[TableColumn]) -> None:
        self._columns = columns
        self._table = live.table_name(stream)
        self._known: dict[str, sql.Composable] = {
            "namespace": sql.Literal(stream.namespace),
            "deployment": sql.Literal(stream.deployment),
            "source": sql.Literal(stream.source),
            "name": sql.Literal(self._table),
            "freshness": sql.Literal(stream.freshness_seconds),
            "output": sql.Literal(stream.compared.name if stream.compared else None),
        }

    def create(self) -> sql.Composed:
        """Return the statement that creates the table of the stream's predictions."""
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

    def filled(self, text: str) -> sql.Composed:
        """Return a statement of this module with the stream's names in it."""
        return sql.SQL(text).format(**self._known)

    def write(
        self, letters: bool, answers: bool, deleted: bool, answered: bool, past: bool, model: int
    ) -> sql.Composed:
        """Return the statement that moves positions, with the parts that a batch needs.

        Its parameters are three arrays of the moves and the attempts, then those of the dead
        letters, of the predictions (plain columns before shaped ones), of the answered questions,
        of the deleted keys and of the past predictions. ``model`` is the id of the model that
        answered.
        """
        parts = [self.filled(_MOVED)]
        parts += [self.filled(_LETTERS)] if letters else []
        first = 5 + _LETTER_PARAMETERS * letters
        parts += [self._upsert(first, model)] if answers else []
        first += len(self._columns) * answers
        parts += [self._by_question(first, model)] if answered else []
        first += _ANSWERED_PARAMETERS * answered
        parts += [self._gone(first)] if deleted else []
        parts += [self._past(first + deleted)] if past else []
        return sql.Composed([*parts, self.filled(_MOVE_ALL)])

    def _upsert(self, first: int, model: int) -> sql.Composed:
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
            id=sql.Literal(model),
            arrays=sql.SQL(", ".join(arrays)),
            names=sql.SQL(", ".join([*(f"c{at}" for at in range(len(plain))), "n"])),
            key=key,
            updates=comma.join(
                sql.SQL("{} = excluded.{}").format(name, name) for name in (*outputs, *system)
            ),
        )

    def _by_question(self, first: int, model: int) -> sql.Composed:
        return sql.SQL(_ANSWERED).format(
            questions=sql.SQL(f"${first}::bytea[]"),
            keys=sql.SQL(f"${first + 1}::text[]"),
            outputs=sql.SQL(f"${first + 2}::text[]"),
            id=sql.Literal(model),
            **self._known,
        )

    def _past(self, first: int) -> sql.Composed:
        kinds = {"sizes": "integer", "keys": "bytea", "numbers": "bytea", "texts": "bytea"}
        arrays = {n: sql.SQL(f"${first + at}::{k}[]") for at, (n, k) in enumerate(kinds.items())}
        return sql.SQL(_PAST).format(**self._known, **arrays)

    def _gone(self, parameter: int) -> sql.Composed:
        key = self._columns[0]
        return sql.SQL(_DELETED).format(
            **self._known,
            table=sql.Identifier("fourways", self._table),
            key=sql.Identifier(key.identifier),
            keys=sql.SQL(f"${parameter}::{pgcopy.TYPES[key.kind].sql}[]"),
        )


def _stored(column: TableColumn) -> str:
    return pgcopy.TYPES[column.kind].sql + ("[]" if column.shape else "")
