"""Ranges of an integer column that each hold about the same number of rows.

Rows are counted in buckets of equal width, in one pass over the query, with another pass if keys
are so unevenly distributed that one bucket holds far too many: no sort, and no index needed. If a
single value holds far too many rows, these are cut further by a hash of the entity key; rows with
one key stay together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from ..postgres.user_query import UserQuery

_BUCKETS_PER_RANGE = 64
_MOST_BUCKETS = 65_536
_TOO_MANY = 4
"""A range is cut further if it holds more than this multiple of the desired rows."""

_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Rows whose key is from ``low`` to ``high``, both included; or the rows without a key."""

    low: int | None
    high: int | None
    rows: int
    part: int = 0
    parts: int = 1
    """Into how many parts the rows of one value are cut by a hash of the entity key."""

    @classmethod
    def of(cls, detail: dict[str, Any]) -> KeyRange:
        """Read a range from its serialized form."""
        return cls(detail["from"], detail["to"], 0, detail.get("part", 0), detail.get("parts", 1))

    def detail(self) -> dict[str, Any]:
        """Serialize the range."""
        cut = {"part": self.part, "parts": self.parts} if self.parts > 1 else {}
        return {"from": self.low, "to": self.high} | cut

    def describe(self, column: str) -> str:
        """Return its name for messages."""
        part = f", part {self.part + 1} of {self.parts}" if self.parts > 1 else ""
        if self.low is None:
            return f"no {column}{part}"
        return f"{column} {self.low} to {self.high}{part}"

    def condition(self, column: sql.Composable, key: sql.Composable) -> sql.Composed:
        """Return the SQL condition for its rows; ``key`` is the column of the entity key."""
        if self.low is None:
            rows = sql.SQL("{} IS NULL").format(column)
        else:
            rows = sql.SQL("{} BETWEEN {} AND {}").format(column, self.low, self.high)
        if self.parts == 1:
            return rows
        return sql.SQL(
            "{} AND mod(hashtext(coalesce({}::text, ''))::bigint & 2147483647, {}) = {}"
        ).format(rows, key, self.parts, self.part)

    def divided(self, rows: int) -> list[KeyRange]:
        """Cut the range by the hash into parts of about ``rows`` rows, if it is far larger."""
        if self.rows <= _TOO_MANY * rows:
            return [self]
        parts = -(-self.rows // rows)
        each, more = divmod(self.rows, parts)
        return [
            replace(self, rows=each + (part < more), part=part, parts=parts)
            for part in range(parts)
        ]


def cut(
    connection: psycopg.Connection, source: UserQuery, column: str, rows: int
) -> list[KeyRange]:
    """Cut the rows of a query into ranges of about ``rows`` rows."""
    name = sql.Identifier("q", column)
    query = sql.SQL("SELECT count(*), count({0}), min({0}), max({0}) {1}").format(
        name, source.source
    )
    ((total, keyed, low, high),) = source.rows(connection, query).fetchall()
    ranges = []
    if keyed:
        ranges = _cut(connection, source, name, (int(low), int(high), int(keyed)), max(rows, 1), 0)
    if total > keyed:
        ranges.append(KeyRange(None, None, int(total - keyed)))
    return [part for each in ranges for part in each.divided(max(rows, 1))]


def _cut(
    connection: psycopg.Connection,
    source: UserQuery,
    name: sql.Composable,
    whole: tuple[int, int, int],
    rows: int,
    depth: int,
) -> list[KeyRange]:
    low, high, total = whole
    span = high - low + 1
    if total <= rows or span == 1:
        return [KeyRange(low, high, total)]
    buckets = min(span, _MOST_BUCKETS, _BUCKETS_PER_RANGE * -(-total // rows))
    width = -(-span // buckets)
    query = sql.SQL(
        "SELECT floor(({0}::numeric - {1}) / {2})::int, count(*) {3} WHERE {4} "
        "GROUP BY 1 ORDER BY 1"
    ).format(name, low, width, source.source, KeyRange(low, high, total).condition(name, name))
    found: list[KeyRange] = []
    begin, count = low, 0
    for bucket, some in source.rows(connection, query).fetchall():
        edge = low + int(bucket) * width
        end = min(edge + width - 1, high)
        if count and count + some > rows:
            found.append(KeyRange(begin, edge - 1, count))
            begin, count = edge, 0
        if some > _TOO_MANY * rows and width > 1 and depth < _DEEPEST:
            found += _cut(connection, source, name, (begin, end, int(some)), rows, depth + 1)
            begin, count = end + 1, 0
        else:
            count += int(some)
    if count:
        found.append(KeyRange(begin, high, count))
    return found
