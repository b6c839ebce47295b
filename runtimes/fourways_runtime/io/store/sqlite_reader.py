"""Reads predictions from SQLite: pointer and rows in one read transaction, on its own threads.

A missing file counts as a store in which nothing has been published.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import orjson

from fourways_api import Contract
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.table_columns import TableColumn
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.keys import group_keys

from . import layout
from .base import Lookup, PublishedRun
from .owners import KEY, NO_OWNERS, Owners, claimed
from .sqlite import quoted, translated, value
from .streams import live
from .streams.stream import AnswerKey, DeadLetterReason, EventPosition, LiveAnswer, LiveLookup

THREADS = 4
_KEY = KEY.replace("@", "")
_STREAM = f"SELECT table_name, contract FROM streams WHERE namespace = ? AND deployment = {_KEY}"  # noqa: S608
LETTERS = f"""SELECT d.partition, d.position, d.headers, d.reason, d.attempts
    FROM streams s CROSS JOIN json_each(?) e CROSS JOIN dead_letters d
    WHERE s.namespace = ? AND s.deployment = {_KEY}
    AND d.namespace = s.namespace AND d.deployment = s.deployment AND d.source = s.source
    AND d.partition = json_extract(e.value, '$[0]')
    AND d.position = json_extract(e.value, '$[1]')"""  # noqa: S608
_QUESTION = f"""SELECT a.question, a.outputs, a.computed_at, m.version, m.digest
    FROM answers a JOIN models m ON m.id = a.model
    WHERE a.namespace = ? AND a.deployment = {_KEY} AND a.question = ?"""  # noqa: S608
_POINTER = f"""SELECT r.id, r.deployment, r.table_name, {layout.RUN_COLUMNS}
    FROM published p JOIN runs r ON r.id = p.run_id WHERE p.namespace = ?"""  # noqa: S608
T = TypeVar("T")


class SqliteReader:
    """The store as the gateway sees it; see :class:`.reader.StoreReader`."""

    def __init__(self, path: Path, timeout: float, owners: Owners = NO_OWNERS) -> None:
        self._path = path
        self._owners = owners
        self._claimed = not owners.uids
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._local = threading.local()
        self._runs: dict[int, PublishedRun] = {}
        self._contracts: dict[str, Contract] = {}

    async def lookup(self, namespace: str, deployment: str, keys: list[Key]) -> Lookup | None:
        """Look up keys in the published run; None if nothing has been published yet."""
        return await self._within(lambda c: self._lookup(c, namespace, deployment, keys), None)

    async def deployments(self, namespace: str) -> list[tuple[str, PublishedRun]]:
        """Return the deployments with a published run."""

        def ask(connection: sqlite3.Connection) -> list[tuple[str, PublishedRun]]:
            rows = connection.execute(_POINTER + " ORDER BY r.deployment", (namespace,)).fetchall()
            if namespace != self._owners.namespace:
                return [(row[1], layout.published_run(row[3:])) for row in rows]
            names = self._owners.names(
                connection.execute(
                    "SELECT key, deployment, uid FROM owners WHERE namespace = ?", (namespace,)
                )
            )
            return sorted(
                (names[row[1]], layout.published_run(row[3:])) for row in rows if row[1] in names
            )

        return await self._within(ask, [])

    async def live(
        self,
        namespace: str,
        deployment: str,
        keys: list[AnswerKey],
        places: Sequence[EventPosition] = (),
    ) -> LiveLookup | None:
        """Look up keys and questions in a stream's predictions; None if it never had a worker."""
        whose = (namespace, *self._owners.values(namespace, deployment))
        return await self._within(lambda c: self._live(c, whose, keys, places), None)

    async def ready(self) -> bool:
        """Tell whether the store answers."""
        try:
            if not self._claimed:
                self._claimed = await asyncio.to_thread(self._claim)
            return await self._within(lambda c: bool(c.execute("SELECT 1").fetchone()), True)
        except StoreUnavailable:
            return False

    def _claim(self) -> bool:
        if not self._path.exists():
            return False  # The first worker creates the store, and claims its own uid.
        from .sqlite_database import SqliteDatabase

        return claimed(lambda: SqliteDatabase(self._path), self._owners)

    async def close(self) -> None:
        """Stop the threads and close their connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _lookup(
        self, connection: sqlite3.Connection, namespace: str, deployment: str, keys: list[Key]
    ) -> Lookup | None:
        connection.execute("BEGIN")
        try:
            pointer = connection.execute(
                f"{_POINTER} AND p.deployment = {_KEY}",
                (namespace, *self._owners.values(namespace, deployment)),
            ).fetchone()
            if pointer is None:
                return None
            if pointer[0] not in self._runs:
                self._runs[pointer[0]] = layout.published_run(pointer[3:])
            run = self._runs[pointer[0]]
            return Lookup(run, _rows(connection, pointer[2], run, keys))
        finally:
            connection.rollback()

    def _live(
        self,
        connection: sqlite3.Connection,
        whose: tuple[str | None, ...],
        wanted: list[AnswerKey],
        places: Sequence[EventPosition],
    ) -> LiveLookup | None:
        keys = [each for each in wanted if not isinstance(each, bytes)]
        questions = [each for each in wanted if isinstance(each, bytes)]
        connection.execute("BEGIN")
        try:
            pointer = connection.execute(_STREAM, whose).fetchone()
            if pointer is None:
                return None
            table, text = pointer
            if text not in self._contracts:
                self._contracts[text] = layout.load_contract(text)
            contract = self._contracts[text]
            answers = _answers(connection, table, contract, keys)
            answers |= _by_question(connection, whose, questions)
            letters = _refused(connection, whose, places) if places else {}
            return LiveLookup(contract, answers, letters)
        finally:
            connection.rollback()

    async def _within(self, ask: Callable[[sqlite3.Connection], T], absent: T) -> T:
        def work() -> T:
            with translated(self._path):
                connection = getattr(self._local, "connection", None)
                if connection is None:
                    if not self._path.exists():
                        return absent
                    connection = self._local.connection = self._connect()
                try:
                    return ask(connection)
                except sqlite3.OperationalError as error:
                    if "no such table" in str(error):  # The writer has not created the tables yet.
                        return absent
                    connection.close()
                    self._local.connection = None
                    raise

        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError:
            raise StoreUnavailable("the prediction store is closed") from None
        try:
            return await asyncio.wait_for(future, self._timeout)
        except TimeoutError:
            raise StoreUnavailable(
                f"the prediction store: no response in {self._timeout:g} s"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=ro",
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
        )


def _rows(
    connection: sqlite3.Connection, table: str, run: PublishedRun, keys: list[Key]
) -> dict[Key, dict[str, Any]]:
    key, *outputs = layout.columns(run.contract)
    meant = group_keys(key.kind, keys)
    listed = ", ".join(quoted(column.identifier) for column in (key, *outputs))
    rows = connection.execute(
        f"SELECT {listed} FROM {quoted(table)} WHERE {quoted(key.identifier)} IN "  # noqa: S608
        "(SELECT value FROM json_each(?))",
        (orjson.dumps(list(meant)).decode(),),
    )
    found: dict[Key, dict[str, Any]] = {}
    for stored, *values in rows:
        answer = {c.name: value(c, cell) for c, cell in zip(outputs, values, strict=True)}
        found.update(dict.fromkeys(meant[stored], answer))
    return found


def _answers(
    connection: sqlite3.Connection, table: str, contract: Contract, keys: list[Key]
) -> dict[AnswerKey, LiveAnswer]:
    key, *outputs = layout.columns(contract)
    meant = group_keys(key.kind, keys)
    names = [column.identifier for column in (key, *outputs)]
    listed = ", ".join(f"t.{quoted(name)}" for name in (*names, live.COMPUTED_AT))
    rows = connection.execute(
        f"SELECT {listed}, m.version, m.digest FROM {quoted(table)} t "  # noqa: S608
        f"JOIN models m ON m.id = t.{quoted(live.MODEL)} WHERE t.{quoted(key.identifier)} IN "
        "(SELECT value FROM json_each(?))",
        (orjson.dumps(list(meant)).decode(),),
    )
    found: dict[AnswerKey, LiveAnswer] = {}
    for stored, *values, at, version, digest in rows:
        values_by_name = {c.name: _whole(c, cell) for c, cell in zip(outputs, values, strict=True)}
        answer = LiveAnswer(values_by_name, datetime.fromisoformat(at), version, digest)
        found.update(dict.fromkeys(meant[stored], answer))
    return found


def _by_question(
    connection: sqlite3.Connection, whose: tuple[str | None, ...], questions: list[bytes]
) -> dict[AnswerKey, LiveAnswer]:
    found: dict[AnswerKey, LiveAnswer] = {}
    for asked_question in questions:
        for question, outputs, at, *model in connection.execute(
            _QUESTION, (*whose, asked_question)
        ):
            computed_at = datetime.fromisoformat(at)
            found[question] = LiveAnswer(orjson.loads(outputs), computed_at, *model)
    return found


def _refused(
    connection: sqlite3.Connection, whose: tuple[str | None, ...], places: Sequence[EventPosition]
) -> dict[EventPosition, DeadLetterReason]:
    rows = connection.execute(
        LETTERS, (orjson.dumps([list(place) for place in places]).decode(), *whose)
    )
    return {EventPosition(*row[:2]): live.refused(*row[2:]) for row in rows}


def _whole(column: TableColumn, stored: Any) -> Any:
    return live.shaped(column, value(column, stored))
