"""Creates the prediction store's tables in PostgreSQL (:mod:`.ddl`), in schema ``fourways``."""

from __future__ import annotations

import psycopg

from fourways_runtime.errors import ConfigError

from ..postgres.connection import lock_number
from .ddl import POSTGRESQL, create_tables
from .layout import SCHEMA_VERSION

_CREATE = (
    "CREATE SCHEMA IF NOT EXISTS fourways;"
    + create_tables(POSTGRESQL)
    # Hashes do not compress, and to compress each micro-batch would cost more than its space.
    + "ALTER TABLE fourways.sections ALTER COLUMN hashes SET STORAGE EXTERNAL;"
    + "".join(
        f"ALTER TABLE fourways.past_predictions ALTER COLUMN {name} SET STORAGE EXTERNAL;"
        for name in ("keys", "numbers", "texts")
    )
)


def ensure_schema(connection: psycopg.Connection) -> None:
    """Create missing tables; safe to run concurrently in several processes.

    Raises:
        ConfigError: the store's version is newer than this code's, or older and this role may not
            upgrade it.

    """
    version = _version(connection)
    if version is None or version < SCHEMA_VERSION:
        try:
            _upgrade(connection)
        except psycopg.errors.InsufficientPrivilege:
            found = "no tables" if version is None else f"schema version {version}"
            raise ConfigError(
                f"the prediction store has {found}, version {SCHEMA_VERSION} is needed, and the "
                "role in the Secret may not change tables: run fourways store init"
            ) from None
        version = _version(connection)
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"the prediction store has schema version {version}, this worker knows "
            f"{SCHEMA_VERSION}; upgrade the older of the two"
        )


def _upgrade(connection: psycopg.Connection) -> None:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number("schema"),))
        connection.execute(_CREATE)
        connection.execute(
            "INSERT INTO fourways.schema_version AS v (version) VALUES (%s) "
            "ON CONFLICT (only_row) DO UPDATE SET version = excluded.version "
            "WHERE v.version < excluded.version",
            (SCHEMA_VERSION,),
        )


def _version(connection: psycopg.Connection) -> int | None:
    found = connection.execute("SELECT to_regclass('fourways.schema_version')").fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute("SELECT version FROM fourways.schema_version").fetchone()
    return None if row is None else int(row[0])
