"""The prediction store: batch and stream workers write it, and the gateway reads it.

Owns the store's address: a ``postgresql://`` or ``sqlite:///PATH`` URI selects the database, and
nothing outside this package knows which one it is. Errors never show a password.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from fourways_runtime.scoring.columns import Key

from ..secret_uri import read_secret_uri, sqlite_path
from .base import Lookup, PublishedRun, Run
from .database import Database
from .owners import NO_OWNERS, Owners, claim, owners_of, owners_of_all
from .reader import StoreReader
from .runs.store import RunStore
from .streams.stream import LiveAnswer, LiveLookup, StreamDeclaration, StreamWriter

__all__ = [
    "Key",
    "LiveAnswer",
    "LiveLookup",
    "Lookup",
    "Owners",
    "PublishedRun",
    "Run",
    "RunStore",
    "StoreReader",
    "StreamDeclaration",
    "StreamWriter",
    "open_database",
    "open_reader",
    "open_run_store",
    "open_stream_writer",
    "owners_of",
    "owners_of_all",
    "read_uri",
]


_WHAT = "the prediction store"


def read_uri(file: str) -> str:
    """Read the store's URI from a mounted file.

    Raises:
        ConfigError: the file is missing or empty.

    """
    where = (
        f"{file} (on a cluster, the key uri of the store's Secret, fourways-store unless the "
        "chart's values say otherwise)"
    )
    return read_secret_uri(Path(file), _WHAT, where)


def open_run_store(uri: str, owners: Owners = NO_OWNERS, *, read_only: bool = False) -> RunStore:
    """Connect to a store of runs, and create its tables if they are missing (blocking).

    ``read_only``: nothing is created or changed; a store without tables has no runs. ``owners``:
    the uids whose runs are seen and written.

    Raises:
        ConfigError: the URI names no supported store, or the store's version is newer.
        StoreUnavailable: the store cannot be reached or denies access.

    """
    return RunStore(open_database(uri, read_only=read_only), owners, read_only=read_only)


def open_database(uri: str, *, read_only: bool = False) -> Database:
    """Connect to a store's database; see :func:`open_run_store`."""
    if (path := sqlite_path(uri, _WHAT)) is not None:
        from .sqlite_database import SqliteDatabase

        return SqliteDatabase(path, read_only=read_only)
    from .postgres_database import PostgresDatabase

    return PostgresDatabase(uri, read_only=read_only)


def open_stream_writer(
    uri: str | Callable[[], str], stream: StreamDeclaration, owners: Owners = NO_OWNERS
) -> StreamWriter:
    """Connect to a store as a stream worker; its tables are created if they are missing.

    After this call, readers see this stream's live table (blocking). A callable is called for the
    URI at each new connection; see :func:`open_reader`. ``owners``: the uid of the deployment.

    Raises:
        ConfigError: the URI names no supported store, or the store's version is newer.
        StoreUnavailable: the store cannot be reached or denies access.

    """
    ask = uri if callable(uri) else lambda: uri
    if uid := owners.uid(stream.namespace, stream.deployment):
        with closing(open_database(ask())) as database:
            key = claim(database, stream.namespace, stream.deployment, uid)
        stream = replace(stream, deployment=key)
    if (path := sqlite_path(ask(), _WHAT)) is not None:
        from .streams.sqlite_stream import SqliteStream

        return SqliteStream(path, stream)
    from .streams.postgres_stream import PostgresStream

    return PostgresStream(ask, stream)


def open_reader(
    uri: str | Callable[[], str], timeout: float, owners: Owners = NO_OWNERS
) -> StoreReader:
    """Return a reader; it connects on first use. ``timeout`` (s) limits each call.

    A callable is called for the URI at each new connection, so a rotated Secret needs no restart.
    It must not change the kind of database. ``owners``: only what belongs to these uids is read;
    before the reader is ready, it claims them in the store.

    Raises:
        ConfigError: the URI names no supported store.

    """
    ask = uri if callable(uri) else lambda: uri
    if (path := sqlite_path(ask(), _WHAT)) is not None:
        from .sqlite_reader import SqliteReader

        return SqliteReader(path, timeout, owners)
    from .postgres_reader import PostgresReader

    return PostgresReader(ask, timeout, owners)
