"""Features from PostgreSQL: one prepared statement for all keys of a batch.

Owns the pool and its recovery, and the check that columns fit the inputs. The address is read again
for every new connection, so a rotated Secret needs no restart. Sessions are read-only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import psycopg
from psycopg import sql
from psycopg.postgres import types as pg_types
from psycopg.types.datetime import (
    DateBinaryLoader,
    TimestampBinaryLoader,
    TimestamptzBinaryLoader,
)
from psycopg.types.numeric import Int8
from psycopg.types.string import StrDumper

from fourways_api import InputField
from fourways_runtime.errors import ConfigError, FeaturesMismatch, FeaturesUnavailable
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import Row
from fourways_runtime.scoring.times import is_time

from ..postgres.connection import conninfo, explain, is_unavailable
from ..postgres.pool import NoConnectionError, ReadOnlyPool, configure_read_only
from .base import WHAT, Wanted

MAX_CONNECTIONS = 4
CONNECT_SECONDS = 5.0

_NUMBERS = frozenset({"int2", "int4", "int8", "float4", "float8", "numeric"})
_MOMENTS = {
    "date": DateBinaryLoader,
    "timestamp": TimestampBinaryLoader,
    "timestamptz": TimestamptzBinaryLoader,
}
_NO_MOMENT = "a moment outside the years 1 to 9999"
"""What a row holds in place of a moment that Python cannot hold, such as infinity: it is refused
where it is used. The error of the library would cost the whole batch."""

_TEXTS = frozenset({"text", "varchar", "bpchar", "name", "char", "uuid", "citext"})
_STALE = (psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidSqlStatementName)
"""The table was altered after a statement was prepared, or a pooler dropped the statement."""


class PostgresSource:
    """A table or a query of a PostgreSQL database; see :class:`.base.FeatureDatabase`."""

    concurrency = MAX_CONNECTIONS

    def __init__(self, wanted: Wanted, uri: Callable[[], str]) -> None:
        self._wanted = wanted
        self._uri = uri
        self._statement = _statement(wanted)
        self._pool = ReadOnlyPool(
            self._conninfo,
            lambda connection: _configure(connection, wanted.timeout),
            size=MAX_CONNECTIONS,
            wait_seconds=CONNECT_SECONDS,
            stale=_STALE,
        )

    async def query(self, keys: list[Key]) -> dict[Key, Row]:
        """Return the rows of these keys."""
        meant = self._wanted.meant(keys)
        try:
            return await self._pool.run(lambda connection: self._ask(connection, meant))
        except NoConnectionError:
            raise FeaturesUnavailable(f"{WHAT}: no connection") from None
        except psycopg.Error as error:
            raise FeaturesUnavailable(self._explained(error)) from None

    async def check(self) -> None:
        """Connect outside the pool, which would hide why it fails, and check the columns."""
        try:
            async with self._connected() as connection:
                if self._wanted.table is not None:
                    await self._check_columns(connection, _columns_of(self._wanted.table), ())
                some: Key = 0 if self._wanted.key.type == "int64" else ""
                await self._check_columns(connection, self._statement, self._given([some]))
        except psycopg.Error as error:
            if is_unavailable(error) and not isinstance(
                error, psycopg.errors.InsufficientPrivilege
            ):
                raise FeaturesUnavailable(self._explained(error)) from None
            raise FeaturesMismatch(self._explained(error)) from None
        await self._pool.open()

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()

    async def _ask(
        self, connection: psycopg.AsyncConnection, meant: dict[Key, list[Key]]
    ) -> dict[Key, Row]:
        cursor = connection.cursor(binary=True)
        async with self._transaction(connection):
            await cursor.execute(self._statement, self._given(meant), prepare=True)
        found = await cursor.fetchall()
        columns = [column.name for column in cursor.description or ()]
        return self._wanted.rows(columns, found, meant)

    @asynccontextmanager
    async def _transaction(self, connection: psycopg.AsyncConnection) -> AsyncIterator[None]:
        """Run statements so that they only read, and leave no setting of the session behind.

        A session is read-only by default, but a query of the spec may change that for the
        statements after it (``set_config``): it runs in a transaction that is read-only itself, and
        is rolled back. One round trip serves all three.
        """
        if self._wanted.query is None:
            yield
            return
        async with connection.pipeline(), connection.transaction(force_rollback=True):
            yield

    async def _check_columns(
        self, connection: psycopg.AsyncConnection, statement: Any, values: Any
    ) -> None:
        async with self._transaction(connection):
            cursor = await connection.execute(statement, values)
        described = cursor.description or ()
        places = self._wanted.placed([column.name for column in described])
        unfit = []
        for name, at in places:
            field = self._wanted.fields.get(name)
            fault = None if field is None else _unfit(field, described[at].type_code)
            if fault is not None:
                unfit.append(fault)
        if unfit:
            raise FeaturesMismatch(f"features: {self._wanted.place}: {'; '.join(unfit)[:512]}")

    def _given(self, keys: Iterable[Key]) -> dict[str, Any]:
        """Return the statement's parameters, with one type regardless of the keys' size."""
        if self._wanted.key.type == "int64":
            return {"keys": [Int8(int(key)) for key in keys]}
        return {"keys": list(keys)}

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection]:
        connection = await psycopg.AsyncConnection.connect(self._conninfo(), autocommit=True)
        async with connection:
            await _configure(connection, CONNECT_SECONDS)
            yield connection

    def _conninfo(self) -> str:
        return conninfo(self._uri(), CONNECT_SECONDS, WHAT)

    def _explained(self, error: psycopg.Error) -> str:
        try:
            text = explain(error, self._uri())
        except ConfigError:
            text = type(error).__name__
        return f"{WHAT}: {text}"


async def _configure(connection: psycopg.AsyncConnection, seconds: float) -> None:
    # Otherwise PostgreSQL infers the type of a text key as a number or a UUID, and one invalid key
    # fails the whole batch.
    connection.adapters.register_dumper(str, StrDumper)
    for name, loader in _MOMENTS.items():
        connection.adapters.register_loader(name, _described_if_outside(loader))
    await configure_read_only(connection, seconds)
    await connection.set_read_only(True)  # for transactions; otherwise the session's default holds


@cache
def _described_if_outside(loader: Any) -> Any:
    class Moment(loader):  # type: ignore[misc]
        def load(self, data: Any) -> Any:
            try:
                return super().load(data)
            except psycopg.DataError:
                return _NO_MOMENT

    return Moment


def _columns_of(table: str) -> sql.Composed:
    return sql.SQL("SELECT * FROM {} LIMIT 0").format(sql.Identifier(*table.split(".")))


def _statement(wanted: Wanted) -> sql.Composed | bytes:
    if wanted.query is not None:
        return wanted.query.encode()  # the deployment's owner wrote it; keys are parameters
    columns = (wanted.key.name, *(name for name in wanted.inputs if name != wanted.key.name))
    return sql.SQL("SELECT {} FROM {} WHERE {} = ANY(%(keys)s)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.Identifier(*(wanted.table or "").split(".")),
        sql.Identifier(wanted.key.name),
    )


def _unfit(field: InputField, oid: int) -> str | None:
    """Return why a column's values do not fit the field, or None if they may fit."""
    found = pg_types.get(oid)
    name = "text" if found is None else found.name  # an enum's values are text
    listed = found is not None and found.array_oid == oid
    if listed != bool(field.shape):
        shape = f"a list of shape {list(field.shape)}" if field.shape else "a single value"
        return f"column {field.name} is {name}{'[]' if listed else ''}, the input is {shape}"
    if field.type == "string":
        fits = name in _TEXTS
    elif field.type == "bytes":
        fits = name in ("bytea", *_TEXTS)
    elif is_time(field.type):
        fits = name in ("timestamptz", "timestamp", "date", "int4", "int8", *_TEXTS)
    elif field.type == "bool":
        fits = name == "bool"
    else:
        fits = name in _NUMBERS
    return None if fits else f"column {field.name} is {name}, the input is {field.type}"
