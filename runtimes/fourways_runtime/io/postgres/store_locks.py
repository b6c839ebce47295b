"""Waits a limited time for locks in the prediction store; messages name who holds the lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from fourways_runtime.errors import StoreUnavailable

from .connection import conninfo, translated

_CONNECT_SECONDS = 5.0
_HOLDERS = """
    SELECT DISTINCT c.relname, l.mode, a.pid, a.application_name, a.usename
    FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
    JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE n.nspname = 'fourways' AND l.granted AND a.application_name IS DISTINCT FROM 'fourways'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY 1, 3 LIMIT 5"""


@contextmanager
def lock_waits_translated(uri: str) -> Iterator[None]:
    """As :func:`.connection.translated`; the error of a lock time-out names who holds a lock."""
    try:
        with translated(uri):
            yield
    except StoreUnavailable as error:
        if isinstance(error.__context__, psycopg.errors.LockNotAvailable):
            raise StoreUnavailable(f"{error}; {_holders(uri)}") from None
        raise


def _holders(uri: str) -> str:
    """Return who holds locks on the store's tables, asked on a connection of its own."""
    try:
        with psycopg.connect(conninfo(uri, _CONNECT_SECONDS), autocommit=True) as connection:
            found = connection.execute(_HOLDERS).fetchall()
    except psycopg.Error as error:
        return f"who holds it could not be asked: {type(error).__name__}"
    holders = [
        f"{table} is held by process {pid} ({', '.join(filter(None, (program, user)))}; {mode})"
        for table, mode, pid, program, user in found
    ]
    return "; ".join(holders)[:600] or "no other program holds one now"
