"""Reads a stream's live table in PostgreSQL: pointer and rows in one statement.

If dead letters are requested too, they are additional rows of that statement, found by the full
primary key of their table. Predictions by question come from a statement of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import Any, Self

import orjson
from psycopg import sql

from fourways_api import Contract
from fourways_runtime.io.postgres import copy_in as pgcopy
from fourways_runtime.io.table_columns import TableColumn
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.keys import group_keys

from .. import layout
from ..owners import KEY
from . import live
from .stream import AnswerKey, DeadLetterReason, EventPosition, LiveAnswer

POSTGRES_KEY = KEY.replace("@", "fourways.").replace("?", "%s")
STREAM = f"""SELECT revision, table_name, contract FROM fourways.streams
    WHERE namespace = %s AND deployment = {POSTGRES_KEY}"""  # noqa: S608
_SELECT = """SELECT s.revision, t.{computed_at}, m.version, m.digest, {columns}{more}
    FROM fourways.streams s
    LEFT JOIN ({table} t JOIN fourways.models m ON m.id = t.{model}) ON t.{key} = ANY(%s::{kind}[])
    WHERE s.namespace = %s AND s.deployment = """
_SELECT += POSTGRES_KEY
_NO_LETTER = ", NULL::integer, NULL::bigint, NULL::text, NULL::text, NULL::integer"
_LETTERS = """ UNION ALL SELECT s.revision, NULL, NULL, NULL, {columns},
        d.partition, d.position, d.headers, d.reason, d.attempts
    FROM fourways.streams s
    CROSS JOIN unnest(%s::integer[], %s::bigint[]) AS e (partition, position)
    JOIN fourways.dead_letters d ON d.namespace = s.namespace AND d.deployment = s.deployment
        AND d.source = s.source AND d.partition = e.partition AND d.position = e.position
    WHERE s.namespace = %s AND s.deployment = """
_LETTERS += POSTGRES_KEY
QUESTIONS = f"""SELECT s.revision, a.question, a.outputs, a.computed_at, m.version, m.digest
    FROM fourways.streams s
    LEFT JOIN (fourways.answers a JOIN fourways.models m ON m.id = a.model)
        ON a.namespace = s.namespace AND a.deployment = s.deployment
        AND a.question = ANY(%s::bytea[])
    WHERE s.namespace = %s AND s.deployment = {POSTGRES_KEY}"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class LiveTarget:
    """One revision of a stream's contract, and the statements that read its table."""

    revision: int
    contract: Contract
    columns: tuple[TableColumn, ...]
    statement: sql.Composed
    with_letters: sql.Composed

    @classmethod
    def of(cls, revision: int, table: str, contract: str) -> Self:
        """Build it from the row that :data:`STREAM` returns."""
        loaded = layout.load_contract(contract)
        columns = layout.columns(loaded)
        listed = [sql.SQL("t.{}").format(sql.Identifier(c.identifier)) for c in columns]

        def select(more: str) -> sql.Composed:
            return sql.SQL(_SELECT).format(
                computed_at=sql.Identifier(live.COMPUTED_AT),
                columns=sql.SQL(", ").join(listed),
                more=sql.SQL(more),
                table=sql.Identifier("fourways", table),
                model=sql.Identifier(live.MODEL),
                key=sql.Identifier(columns[0].identifier),
                kind=sql.SQL(pgcopy.TYPES[columns[0].kind].sql),
            )

        nulls = sql.SQL(", ").join([sql.NULL] * len(columns))
        with_letters = select(_NO_LETTER) + sql.SQL(_LETTERS).format(columns=nulls)
        return cls(revision, loaded, columns, select(""), with_letters)

    def asking(
        self, keys: Iterable[Key], places: Sequence[EventPosition], whose: tuple[str | None, ...]
    ) -> tuple[sql.Composed, tuple[Any, ...]]:
        """Return the statement that looks up these keys and events, and its parameters."""
        values = (list(self.meant(keys)), *whose)
        if not places:
            return self.statement, values
        partitions, positions = map(list, zip(*places, strict=True))
        return self.with_letters, (*values, partitions, positions, *whose)

    def meant(self, keys: Iterable[Key]) -> dict[Key, list[Key]]:
        """Group the given keys by their typed value."""
        return group_keys(self.columns[0].kind, keys)

    def answers(
        self, rows: list[tuple[Any, ...]], keys: Iterable[Key]
    ) -> dict[AnswerKey, LiveAnswer]:
        """Return the predictions in the statement's rows, under the keys as given."""
        meant = self.meant(keys)
        found: dict[AnswerKey, LiveAnswer] = {}
        end = 4 + len(self.columns)
        for row in rows:
            _, computed_at, version, digest, key = row[:5]
            if key is None:
                continue
            outputs = zip(self.columns[1:], row[5:end], strict=True)
            values = {column.name: _value(column, cell) for column, cell in outputs}
            answer = LiveAnswer(values, computed_at.astimezone(UTC), version, digest)
            found.update(dict.fromkeys(meant[key], answer))
        return found


def answers(rows: list[tuple[Any, ...]]) -> dict[AnswerKey, LiveAnswer]:
    """Return the predictions in the rows of :data:`QUESTIONS`, by question."""
    return {
        bytes(question): LiveAnswer(
            orjson.loads(outputs), computed_at.astimezone(UTC), version, digest
        )
        for _, question, outputs, computed_at, version, digest in rows
        if question is not None
    }


def refused(rows: list[tuple[Any, ...]]) -> dict[EventPosition, DeadLetterReason]:
    """Return the dead letters in the rows of a statement that requests them."""
    letters = (row[-5:] for row in rows)
    return {
        EventPosition(partition, position): live.refused(*reason)
        for partition, position, *reason in letters
        if partition is not None
    }


def whole(value: Any) -> Any:
    """Return a Decimal, or a list of them, as integers."""
    if isinstance(value, Decimal):
        return int(value)
    return [whole(element) for element in value]


def _value(column: TableColumn, cell: Any) -> Any:
    if column.kind == "uint64":
        cell = whole(cell)
    return live.shaped(column, cell)
