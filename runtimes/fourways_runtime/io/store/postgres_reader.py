"""Reads predictions from PostgreSQL: pointer and rows in one statement, one round trip.

Owns the pool and its recovery. A published run never changes, so its contract and the statement
that reads it are cached until the pointer moves; the statement that fetches the rows also checks
the pointer. No call waits longer than its time-out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from fourways_runtime.errors import ConfigError, StoreUnavailable
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.keys import group_keys

from ..postgres import copy_in as pgcopy
from ..postgres.connection import conninfo, explain, is_unavailable
from ..postgres.pool import NoConnectionError, ReadOnlyPool, configure_read_only
from . import layout
from .base import Lookup, PublishedRun
from .owners import NO_OWNERS, Owners, claimed
from .streams.postgres_live import (
    POSTGRES_KEY,
    QUESTIONS,
    STREAM,
    LiveTarget,
    answers,
    refused,
    whole,
)
from .streams.stream import AnswerKey, EventPosition, LiveLookup

MAX_CONNECTIONS = 8
MAX_WAITING = 10_000

_TRIES = 3
_POINTER = f"""SELECT r.id, r.deployment, r.table_name, {layout.RUN_COLUMNS}
    FROM fourways.published p JOIN fourways.runs r ON r.id = p.run_id
    WHERE p.namespace = %s"""  # noqa: S608
_OWNERS = "SELECT key, deployment, uid FROM fourways.owners WHERE namespace = %s"
_LOOKUP = f"""SELECT p.run_id, {{}} FROM fourways.published p
    LEFT JOIN {{}} t ON t.{{}} = ANY(%s::{{}})
    WHERE p.namespace = %s AND p.deployment = {POSTGRES_KEY}"""  # noqa: S608
_GONE = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Target:
    """A published run, and the statement that reads it."""

    id: int
    run: PublishedRun
    statement: sql.Composed
    names: tuple[str, ...]
    wide: tuple[int, ...]
    """The outputs that are integers but arrive as Decimal."""


class PostgresReader:
    """The store as the gateway sees it; see :class:`.reader.StoreReader`."""

    def __init__(self, uri: Callable[[], str], timeout: float, owners: Owners = NO_OWNERS) -> None:
        self._uri = uri
        self._owners = owners
        self._claimed = not owners.uids
        self._timeout = timeout
        self._pool = ReadOnlyPool(
            lambda: conninfo(uri(), timeout),
            lambda connection: configure_read_only(connection, timeout),
            size=MAX_CONNECTIONS,
            wait_seconds=timeout,
            max_waiting=MAX_WAITING,
        )
        self._targets: dict[tuple[str, str], _Target] = {}
        self._streams: dict[tuple[str, str], LiveTarget] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def lookup(self, namespace: str, deployment: str, keys: list[Key]) -> Lookup | None:
        """Look up keys in the published run; None if nothing has been published yet."""
        return await self._within(self._lookup(namespace, deployment, keys))

    async def deployments(self, namespace: str) -> list[tuple[str, PublishedRun]]:
        """Return the deployments with a published run."""
        rows = await self._within(self._query(_POINTER + " ORDER BY r.deployment", (namespace,)))
        if namespace != self._owners.namespace:
            return [(row[1], layout.published_run(row[3:])) for row in rows or []]
        owners = await self._within(self._query(_OWNERS, (namespace,)))
        names = self._owners.names(owners or [])
        return sorted(
            (names[row[1]], layout.published_run(row[3:])) for row in rows or [] if row[1] in names
        )

    async def live(
        self,
        namespace: str,
        deployment: str,
        keys: list[AnswerKey],
        places: Sequence[EventPosition] = (),
    ) -> LiveLookup | None:
        """Look up keys and questions in a stream's predictions; None if it never had a worker."""
        return await self._within(self._live((namespace, deployment), keys, places))

    async def ready(self) -> bool:
        """Tell whether the store answers."""
        try:
            if not self._claimed:
                self._claimed = await self._within(asyncio.to_thread(self._claim))
            return await self._within(self._query("SELECT 1", ())) is not None
        except StoreUnavailable:
            return False

    def _claim(self) -> bool:
        from .postgres_database import PostgresDatabase

        return claimed(lambda: PostgresDatabase(self._uri()), self._owners)

    async def close(self) -> None:
        """Close the pool."""
        for task in self._tasks:
            task.cancel()
        await self._pool.close()

    async def _lookup(self, namespace: str, deployment: str, keys: list[Key]) -> Lookup | None:
        whose = (namespace, deployment)
        for _ in range(_TRIES):
            target = self._targets.get(whose) or await self._find(whose)
            if target is None:
                return None
            meant = group_keys(target.run.contract.entity_key.type, keys)
            values = (list(meant), whose[0], *self._owners.values(*whose))
            rows = await self._query(target.statement, values)
            # No rows: nothing is published any more. A different id or a missing table: the pointer
            # has moved.
            if rows and rows[0][0] == target.id:
                found = {}
                for row in rows:
                    if row[1] is not None:
                        answer = _answer(target, row[2:])
                        found.update(dict.fromkeys(meant[row[1]], answer))
                return Lookup(target.run, found)
            self._targets.pop(whose, None)
        raise StoreUnavailable("the prediction store: the published run changed while it was read")

    async def _find(self, whose: tuple[str, str]) -> _Target | None:
        values = (whose[0], *self._owners.values(*whose))
        rows = await self._query(f"{_POINTER} AND p.deployment = {POSTGRES_KEY}", values)
        if not rows:
            return None
        target = _target(rows[0][0], rows[0][2], layout.published_run(rows[0][3:]))
        self._targets[whose] = target
        return target

    async def _live(
        self, whose: tuple[str, str], wanted: list[AnswerKey], places: Sequence[EventPosition]
    ) -> LiveLookup | None:
        key = (whose[0], *self._owners.values(*whose))
        keys = [each for each in wanted if not isinstance(each, bytes)]
        questions = [each for each in wanted if isinstance(each, bytes)]
        by_key = bool(keys or places or not questions)
        for _ in range(_TRIES):
            target = self._streams.get(whose) or await self._find_stream(whose)
            if target is None:
                return None
            # As with runs: a different revision or a missing table means that the contract has
            # changed.
            lookup = LiveLookup(target.contract, {})
            rows = await self._query(*target.asking(keys, places, key)) if by_key else None
            if rows and rows[0][0] == target.revision:
                letters = refused(rows) if places else {}
                lookup = LiveLookup(target.contract, target.answers(rows, keys), letters)
            elif by_key:
                self._streams.pop(whose, None)
                continue
            if not questions:
                return lookup
            rows = await self._query(QUESTIONS, (questions, *key))
            if rows and rows[0][0] == target.revision:
                return replace(lookup, answers={**lookup.answers, **answers(rows)})
            self._streams.pop(whose, None)
        raise StoreUnavailable("the prediction store: the stream's table changed while it was read")

    async def _find_stream(self, whose: tuple[str, str]) -> LiveTarget | None:
        rows = await self._query(STREAM, (whose[0], *self._owners.values(*whose)))
        if not rows:
            return None
        target = self._streams[whose] = LiveTarget.of(*rows[0])
        return target

    async def _query(
        self, query: str | sql.Composed, values: tuple[Any, ...]
    ) -> list[tuple[Any, ...]] | None:
        """Return all rows; None if the table or the store's schema does not exist."""

        async def ask(connection: psycopg.AsyncConnection) -> list[tuple[Any, ...]]:
            cursor = connection.cursor(binary=True)
            await cursor.execute(query, values)
            return await cursor.fetchall()

        try:
            return await self._pool.run(ask)
        except _GONE:
            return None
        except NoConnectionError:
            raise StoreUnavailable("the prediction store: no connection") from None
        except psycopg.Error as error:
            if not is_unavailable(error):
                raise
            raise StoreUnavailable(f"the prediction store: {self._explained(error)}") from None

    async def _within(self, question: Coroutine[Any, Any, T]) -> T:
        """Wait for a result until the time-out, without waiting for the cancellation."""
        task = asyncio.ensure_future(question)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            raise StoreUnavailable(f"the prediction store: no response in {self._timeout:g} s")
        return task.result()

    def _explained(self, error: psycopg.Error) -> str:
        try:
            return explain(error, self._uri())
        except ConfigError:
            return type(error).__name__


def _target(run_id: int, table: str, run: PublishedRun) -> _Target:
    key, *outputs = layout.columns(run.contract)
    listed = [sql.SQL("t.{}").format(sql.Identifier(c.identifier)) for c in (key, *outputs)]
    statement = sql.SQL(_LOOKUP).format(
        sql.SQL(", ").join(listed),
        sql.Identifier("fourways", table),
        sql.Identifier(key.identifier),
        sql.SQL(f"{pgcopy.TYPES[key.kind].sql}[]"),
    )
    wide = tuple(at for at, column in enumerate(outputs) if column.kind == "uint64")
    return _Target(run_id, run, statement, tuple(column.name for column in outputs), wide)


def _answer(target: _Target, values: tuple[Any, ...]) -> dict[str, Any]:
    answer = dict(zip(target.names, values, strict=True))
    for at in target.wide:
        answer[target.names[at]] = whole(values[at])
    return answer
