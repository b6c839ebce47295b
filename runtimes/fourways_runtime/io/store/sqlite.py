"""What writer and reader share of SQLite: the file, the errors, the tables.

The same tables as in PostgreSQL, in one file in WAL mode, so that readers never wait for a writer.
What SQLite has no type for is text: arrays as JSON, uint64 in digits. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from fourways_runtime.errors import ConfigError, StoreFull, StoreUnavailable
from fourways_runtime.scoring.columns import Keys

from ..table_columns import TableColumn
from . import ddl
from .layout import SCHEMA_VERSION

BUSY_SECONDS = 30.0
"""How long a writer waits for another one's transaction."""

CREATE = """
CREATE TABLE IF NOT EXISTS schema_version (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1), version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, deployment TEXT NOT NULL, name TEXT NOT NULL,
    table_name TEXT NOT NULL DEFAULT '',
    version TEXT NOT NULL, digest TEXT NOT NULL, contract TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'writing' CHECK (state IN ('writing', 'published')),
    started_at TEXT NOT NULL, computed_at TEXT, published_at TEXT,
    rows INTEGER NOT NULL DEFAULT 0, rejects INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, deployment, name));
CREATE TABLE IF NOT EXISTS published (
    namespace TEXT NOT NULL, deployment TEXT NOT NULL,
    run_id INTEGER NOT NULL REFERENCES runs, moved_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (namespace, deployment));
CREATE TABLE IF NOT EXISTS rejects (
    run_id INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    position INTEGER NOT NULL, key TEXT, field TEXT NOT NULL, reason TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS rejects_run_id ON rejects (run_id);
CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    version TEXT NOT NULL, digest TEXT NOT NULL, UNIQUE (version, digest));
CREATE TABLE IF NOT EXISTS streams (
    namespace TEXT NOT NULL, deployment TEXT NOT NULL,
    version TEXT NOT NULL, digest TEXT NOT NULL, contract TEXT NOT NULL, source TEXT NOT NULL,
    table_name TEXT NOT NULL, revision INTEGER NOT NULL DEFAULT 1,
    started_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (namespace, deployment));
CREATE TABLE IF NOT EXISTS positions (
    namespace TEXT NOT NULL, deployment TEXT NOT NULL, source TEXT NOT NULL,
    partition INTEGER NOT NULL, next INTEGER NOT NULL, tries INTEGER NOT NULL,
    PRIMARY KEY (namespace, deployment, source, partition));
CREATE TABLE IF NOT EXISTS dead_letters (
    namespace TEXT NOT NULL, deployment TEXT NOT NULL, source TEXT NOT NULL,
    partition INTEGER NOT NULL, position INTEGER NOT NULL, key BLOB, value BLOB,
    headers TEXT NOT NULL, attempts INTEGER NOT NULL, reason TEXT NOT NULL,
    died_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (namespace, deployment, source, partition, position));
"""
CREATE += ddl.CREATE.replace("@", "")


def sql_type(column: TableColumn) -> str:
    """Return a column's type in SQL."""
    if column.shape or column.kind in ("string", "uint64"):
        return "TEXT"
    return "REAL" if column.kind.startswith("float") else "INTEGER"


def quoted(identifier: str) -> str:
    """Quote an identifier. The layout's names hold no quote."""
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
    """Return a cell as it went in: a plain Python value, a list for an array."""
    if column.shape:
        return orjson.loads(stored)
    if column.kind == "bool":
        return bool(stored)
    return int(stored) if column.kind == "uint64" else stored


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of the world (missing, locked, full, read-only) into StoreUnavailable."""
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
    """Write in one transaction, asking for the write lock at once so as not to lose it halfway."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def connect(path: Path) -> sqlite3.Connection:
    """Open the store for writing and make its tables where they are missing.

    Raises:
        ConfigError: the store is of a newer version than we know.

    """
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A published run must outlive a power cut; WAL's default may lose the last commit.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _ensure_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _ensure_schema(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        for statement in CREATE.split(";\n"):
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
