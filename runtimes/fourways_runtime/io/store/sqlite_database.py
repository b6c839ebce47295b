"""SQLite as the writers of runs need it; see :class:`.database.Database`.

One file, one writer at a time. A file lock beside the database takes the place of PostgreSQL's
session locks: the kernel releases it when its holder dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.scoring.columns import Array, Keys, Reject

from ..table_columns import TableColumn
from .database import Duplicates, TableMissing, quoted
from .sqlite import (
    BUSY_SECONDS,
    cells,
    connect,
    connect_read_only,
    sql_type,
    transaction,
    translated,
)

CLOSE_SECONDS = 2 * BUSY_SECONDS
"""How long closing waits for another thread's statement."""


class SqliteDatabase:
    """One connection."""

    streams = False
    layered = False
    exists_hashes = False

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """``read_only``: no file and no tables are created."""
        self._path = path
        self._held: dict[str, int] = {}
        self._turn = threading.RLock()
        with translated(path):
            self._connection = connect_read_only(path) if read_only else connect(path)

    def second(self) -> SqliteDatabase:
        """Open another connection to the same store."""
        return SqliteDatabase(self._path)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        with self._turn, self._translated():
            return self._connection.execute(_spelt(query), values).fetchall()

    def rows_within(
        self, seconds: float, query: str, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]] | None:
        """Run a statement and return its rows, whatever time it takes: the file is this host's."""
        return self.rows(query, values)

    def change(self, query: str, values: Sequence[Any] = ()) -> int:
        """Run a statement and return the number of affected rows."""
        with self._turn, self._translated():
            return self._connection.execute(_spelt(query), values).rowcount

    def transaction(self, lock: str = "") -> AbstractContextManager[None]:
        """Run a transaction; the database's single write lock serves for every ``lock``."""
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._turn, self._translated(), transaction(self._connection):
            yield

    def time(self, moment: datetime) -> Any:
        """Return a time in the format of its columns."""
        return moment.isoformat()

    def array(self, numbers: Array) -> Any:
        """Return integers in the format that statements take."""
        return orjson.dumps(numbers.tolist()).decode()

    def hold(self, lock: str) -> bool:
        """Take a lock that lasts as long as this connection."""
        handle = _locked(self._file(lock))
        if handle is None:
            return False
        self._held[lock] = handle
        return True

    def let_go(self, lock: str) -> None:
        """Release a lock."""
        handle = self._held.pop(lock, None)
        if handle is not None:
            _unlocked(self._file(lock), handle)

    def held(self, lock: str) -> bool:
        """Tell whether any connection holds a lock."""
        file = self._file(lock)
        handle = _locked(file) if file.exists() else None
        if handle is None:
            return file.exists()
        _unlocked(file, handle)
        return False

    def create(self, table: str, columns: Sequence[TableColumn]) -> None:
        """Create a table."""
        defined = ", ".join(f"{quoted(c.identifier)} {sql_type(c)} NOT NULL" for c in columns)
        self.change(f"CREATE TABLE {quoted(table)} ({defined})")

    def index(self, table: str, key: str) -> None:
        """Index a table by a column."""
        self.change(f"CREATE UNIQUE INDEX {quoted(table + '_key')} ON {quoted(table)} ({key})")

    def appender(self, table: str, columns: Sequence[TableColumn]) -> Callable[[list[Keys]], None]:
        """Return a function that appends rows to a table."""
        marks = ", ".join("?" * len(columns))
        into = f"INSERT INTO {quoted(table)} VALUES ({marks})"  # noqa: S608

        def append(values: list[Keys]) -> None:
            stored = [cells(column, array) for column, array in zip(columns, values, strict=True)]
            with self._turn, self._translated():
                self._connection.executemany(into, zip(*stored, strict=True))

        return append

    def append_rejects(self, run_id: int, rejects: list[Reject]) -> None:
        """Append rejects to a run."""
        rows = [(run_id, r.row, r.key, r.field, r.reason) for r in rejects]
        with self._turn, self._translated():
            self._connection.executemany("INSERT INTO rejects VALUES (?, ?, ?, ?, ?)", rows)

    def blobs(self, query: str, values: Sequence[Any]) -> list[bytes]:
        """Return the single column of a query, in any order."""
        return [raw for (raw,) in self.rows(query, values)]

    def relations(self) -> list[str]:
        """Return the names of all runs' tables and views, views first."""
        query = (
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name GLOB 'run_*' "
            "ORDER BY type DESC, name"
        )
        return [str(name) for (name,) in self.rows(query)]

    def drop(self, relation: str) -> None:
        """Drop a run's table or view."""
        kind = self.rows("SELECT type FROM sqlite_master WHERE name = ?", (relation,))
        if kind:
            self.change(f"DROP {kind[0][0]} IF EXISTS {quoted(relation)}")

    def close(self) -> None:
        """Close the file, unless a statement on another thread hangs.

        SQLite frees what a running statement still uses, and the process crashes or stands still.
        """
        for lock in list(self._held):
            self.let_go(lock)
        if self._turn.acquire(timeout=CLOSE_SECONDS):
            try:
                self._connection.close()
            finally:
                self._turn.release()

    def _file(self, lock: str) -> Path:
        name = hashlib.sha256(lock.encode()).hexdigest()[:16]
        return self._path.with_name(f"{self._path.name}-lock-{name}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated(self._path):
                yield
        except sqlite3.ProgrammingError as error:
            if "closed" not in str(error):
                raise
            raise StoreUnavailable(f"the prediction store {self._path.name} is closed") from None
        except sqlite3.IntegrityError as error:
            raise (Duplicates if "UNIQUE" in str(error) else TableMissing) from None
        except StoreUnavailable as error:
            if "no such table" in str(error):
                raise TableMissing from None
            raise


@lru_cache(maxsize=256)
def _spelt(query: str) -> str:
    text = query.replace(":each(?)", "(SELECT value FROM json_each(?))").replace("@", "")
    text = text.replace(":now", "((julianday('now') - 2440587.5) * 86400.0)")
    return text.replace(":skip", "").replace(":brief", "").replace(":rowid", "rowid")


def _locked(file: Path) -> int | None:
    """Lock a file; None if it is already locked."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The previous holder may have removed the file in the meantime; the lock would then be
        # useless.
        if os.fstat(handle).st_ino == os.stat(file).st_ino:
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _unlocked(file: Path, handle: int) -> None:
    with suppress(OSError):
        os.unlink(file)
    os.close(handle)
