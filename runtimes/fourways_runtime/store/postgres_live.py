"""A stream's live table in PostgreSQL, as it is read: pointer and rows in one statement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import Any, Self

from psycopg import sql

from fourways_api import Contract

from . import layout, live, pgcopy
from .base import Key
from .reading import asked
from .stream import LiveAnswer

STREAM = """SELECT revision, table_name, contract FROM fourways.streams
    WHERE namespace = %s AND deployment = %s"""
_SELECT = """SELECT s.revision, t.{computed_at}, m.version, m.digest, {columns}
    FROM fourways.streams s
    LEFT JOIN ({table} t JOIN fourways.models m ON m.id = t.{model}) ON t.{key} = ANY(%s::{kind}[])
    WHERE s.namespace = %s AND s.deployment = %s"""


@dataclass(frozen=True, slots=True)
class LiveTarget:
    """A stream's contract of a revision, and the statement that reads its table."""

    revision: int
    contract: Contract
    columns: tuple[layout.Column, ...]
    statement: sql.Composed

    @classmethod
    def of(cls, revision: int, table: str, contract: str) -> Self:
        """Build it from what :data:`STREAM` answers."""
        loaded = layout.load_contract(contract)
        columns = layout.columns(loaded)
        listed = [sql.SQL("t.{}").format(sql.Identifier(c.identifier)) for c in columns]
        statement = sql.SQL(_SELECT).format(
            computed_at=sql.Identifier(live.COMPUTED_AT),
            columns=sql.SQL(", ").join(listed),
            table=sql.Identifier("fourways", table),
            model=sql.Identifier(live.MODEL),
            key=sql.Identifier(columns[0].identifier),
            kind=sql.SQL(pgcopy.TYPES[columns[0].kind].sql),
        )
        return cls(revision, loaded, columns, statement)

    def meant(self, keys: Iterable[Key]) -> dict[Key, list[Key]]:
        """Group keys as given by the key they mean."""
        return asked(self.columns[0].kind, keys)

    def answers(self, rows: list[tuple[Any, ...]], keys: Iterable[Key]) -> dict[Key, LiveAnswer]:
        """Return the answers in the statement's rows, under the keys as given."""
        meant = self.meant(keys)
        found: dict[Key, LiveAnswer] = {}
        for _, computed_at, version, digest, key, *cells in rows:
            if key is None:
                continue
            outputs = zip(self.columns[1:], cells, strict=True)
            told = {column.name: _value(column, cell) for column, cell in outputs}
            answer = LiveAnswer(told, computed_at.astimezone(UTC), version, digest)
            found.update(dict.fromkeys(meant[key], answer))
        return found


def whole(value: Any) -> Any:
    """Return whole numbers that came as Decimal, or lists of them."""
    if isinstance(value, Decimal):
        return int(value)
    return [whole(element) for element in value]


def _value(column: layout.Column, cell: Any) -> Any:
    if column.kind == "uint64":
        cell = whole(cell)
    return live.shaped(column, cell)
