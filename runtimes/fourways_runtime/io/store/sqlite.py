"""Shared by the SQLite writer and reader: the file, the errors and the tables.

The same tables as in PostgreSQL, in one file in WAL mode, so that readers never wait for a writer.
Types that SQLite lacks are stored as text: arrays as JSON, uint64 as digits. Times are ISO 8601 in
UTC.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from fourways_runtime.errors import ConfigError, StoreFull, StoreUnavailable
from fourways_runtime.retry import retry_until_available
from fourways_runtime.scoring.columns import Keys

from ..table_columns import TableColumn
from .ddl import SQLITE, create_tables
from .layout import SCHEMA_VERSION

BUSY_SECONDS = 30.0
"""How long a writer waits for another writer's transaction."""

_LOCKED_SECONDS = 0.02
"""Pause where SQLite itself does not wait."""


def sql_type(column: TableColumn) -> str:
    """Return a column's SQL type."""
    if column.shape or column.kind in ("string", "uint64"):
        return "TEXT"
    return "REAL" if column.kind.startswith("float") else "INTEGER"


def quoted(identifier: str) -> str:
    """Quote an identifier. The layout's names contain no quotes."""
    return f'"{identifier}"'


def cells(column: TableColumn, values: Keys) -> list[Any]:
    """Return a column's values as SQLite stores them."""
    if column.shape:
        return [orjson.dumps(value).decode() for value in values.tolist()]
    if column.kind == "uint64":
        return [str(value) for value in values.tolist()]
    stored: list[Any] = values.tolist()
    return stored


def value(column: TableColumn, stored: Any) -> Any:
    """Return a stored cell as a plain Python value, a list for an array."""
    if column.shape:
        return orjson.loads(stored)
    if column.kind == "bool":
        return bool(stored)
    return int(stored) if column.kind == "uint64" else stored


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Translate external errors (missing, locked, full, read-only) into StoreUnavailable."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        kind = StoreFull if full else StoreUnavailable
        raise kind(f"the prediction store {path.name}: {error}") from None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write in one transaction; take the write lock first, so that it cannot fail halfway."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.commit()
    except BaseException:
        # Also after a commit that failed: an open transaction would refuse the next one.
        with suppress(sqlite3.Error):
            connection.rollback()
        raise


def connect(path: Path) -> sqlite3.Connection:
    """Open the store for writing and create missing tables.

    Raises:
        ConfigError: the store's version is newer than this code's.

    """
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        retry_until_available(
            lambda: _use_write_ahead_log(connection), BUSY_SECONDS, pause=_LOCKED_SECONDS
        )
        # A published run must survive a power failure; WAL's default may lose the last commit.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _ensure_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch a new file to a write-ahead log; nothing is changed if it has one.

    Raises:
        StoreUnavailable: another connection is switching it now. SQLite does not wait for that,
            because the two could wait for each other.

    """
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise StoreUnavailable(f"the prediction store: {error}") from None


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open the store for reading. A missing file counts as an empty database."""
    if not path.exists():
        return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    uri = f"file:{quote(str(path))}?mode=ro"
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _ensure_schema(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        for statement in create_tables(SQLITE).split(";\n"):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO schema_version VALUES (1, ?) ON CONFLICT (only_row) DO UPDATE "
            "SET version = excluded.version WHERE version < excluded.version",
            (SCHEMA_VERSION,),
        )
        (version,) = connection.execute("SELECT version FROM schema_version").fetchone()
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"the prediction store has schema version {version}, this worker knows "
            f"{SCHEMA_VERSION}; upgrade the older of the two"
        )
