"""Features from a SQLite file, as used by ``fourways up`` on a laptop; runs on its own thread.

Values for which SQLite has no type are read as the contract declares them: lists from JSON,
booleans from 0 and 1. A query written for PostgreSQL works if ``= ANY(%(keys)s)`` is its only
PostgreSQL syntax.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import orjson

from fourways_runtime.errors import FeaturesMismatch, FeaturesUnavailable, WorkloadError
from fourways_runtime.scoring import exact_json
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import Row

from .base import Wanted

T = TypeVar("T")

_ANY = re.compile(r"=\s*ANY\s*\(\s*%\(keys\)s\s*\)", re.IGNORECASE)
_AMONG = "IN (SELECT value FROM json_each(:keys))"


class SqliteSource:
    """A table or a query of a SQLite file; see :class:`.base.FeatureDatabase`."""

    concurrency = 1

    def __init__(self, wanted: Wanted, path: Path) -> None:
        self._wanted = wanted
        self._path = path
        self._statement = _statement(wanted)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._connection: sqlite3.Connection | None = None

    async def query(self, keys: list[Key]) -> dict[Key, Row]:
        """Return the rows of these keys."""
        return await self._in_thread(lambda connection: self._rows(connection, keys))

    async def check(self) -> None:
        """Open the file and check the columns."""

        def look(connection: sqlite3.Connection) -> None:
            if self._wanted.table is not None:
                everything = f"SELECT * FROM {_table(self._wanted.table)} LIMIT 0"  # noqa: S608
                self._wanted.placed(_columns(connection.execute(everything)))
            self._rows(connection, [])

        try:
            await self._in_thread(look)
        except FeaturesUnavailable as error:
            if "no such table" in str(error) or "no such column" in str(error):
                raise FeaturesMismatch(str(error)) from None
            raise

    async def close(self) -> None:
        """Stop the thread and close its connection."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _rows(self, connection: sqlite3.Connection, keys: list[Key]) -> dict[Key, Row]:
        meant = self._wanted.meant(keys)
        given = {"keys": orjson.dumps(list(meant)).decode()}
        cursor = connection.execute(self._statement, given)
        rows = self._wanted.rows(_columns(cursor), cursor.fetchall(), meant)
        return {key: self._typed(row) for key, row in rows.items()}

    def _typed(self, row: Row) -> Row:
        typed = dict(row)
        for name, field in self._wanted.fields.items():
            value = typed[name]
            if field.shape and isinstance(value, str):
                try:
                    typed[name] = exact_json.loads(value)
                except orjson.JSONDecodeError:
                    continue  # the contract check reports a value that is not a list
            elif field.type == "bool" and type(value) is int and value in (0, 1):
                typed[name] = bool(value)
        return typed

    async def _in_thread(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        def work() -> T:
            try:
                return ask(self._connected())
            except sqlite3.Error as error:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                text = f"the feature database {self._path.name}: {error}"
                raise FeaturesUnavailable(text) from None

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except WorkloadError:
            raise
        except RuntimeError:
            raise FeaturesUnavailable("the feature database is closed") from None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=ro",
                uri=True,
                timeout=self._wanted.timeout,
                isolation_level=None,
                check_same_thread=False,
            )
        return self._connection


def _statement(wanted: Wanted) -> str:
    if wanted.query is not None:
        among = _ANY.sub(_AMONG, wanted.query)
        return among.replace("%(keys)s", ":keys").replace("%%", "%")
    listed = ", ".join(map(_quoted, (wanted.key.name, *wanted.inputs)))
    where = f"{_quoted(wanted.key.name)} {_AMONG}"
    return f"SELECT {listed} FROM {_table(wanted.table or '')} WHERE {where}"  # noqa: S608


def _table(name: str) -> str:
    return ".".join(map(_quoted, name.split(".")))


def _columns(cursor: sqlite3.Cursor) -> list[str]:
    return [column[0] for column in cursor.description or ()]


def _quoted(identifier: str) -> str:
    """Quote an identifier; names in the contract and the API contain no bracket.

    If double quotes were used, SQLite would read the name of a missing column as a string.
    """
    return f"[{identifier}]"
