"""The database interface that the ledger, publishing and run records need; it has two variants.

Statements are written once for both: ``@`` before a table's name stands for the schema, ``?`` for a
value, ``:now`` for the database's time, ``:skip`` for skipping rows that others have locked,
``:rowid`` for a row's physical location, ``:each(?)`` for the numbers of an array, and ``:brief``
at the end of a condition for a transaction that a hung worker keeps open only briefly. Names are
quoted by :func:`quoted`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from fourways_runtime.scoring.columns import Array, Keys, Reject

from ..table_columns import TableColumn


class Duplicates(Exception):
    """A unique index cannot be created because a key occurs more than once."""


class TableMissing(Exception):
    """A table, or a row that others refer to, no longer exists: another process dropped it."""


class Database(Protocol):
    """One connection to a store. Every call may raise StoreUnavailable.

    Calls may come from several threads; a transaction belongs to one of them.
    """

    streams: bool
    """Whether a transaction may stay open while rows arrive. If not, it blocks other writers."""

    layered: bool
    """Whether key lookups in a view over two tables are as fast as in a table."""

    exists_hashes: bool
    """Whether EXISTS uses a hash lookup if there is no index. If not, IN does."""

    def second(self) -> Database:
        """Open another connection to the same store."""
        ...

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        ...

    def rows_within(
        self, seconds: float, query: str, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]] | None:
        """Run a statement and return its rows; None if a shared database needs longer for it."""
        ...

    def change(self, query: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; return the number of affected rows. Raises Duplicates, TableMissing."""
        ...

    def transaction(self, lock: str = "") -> AbstractContextManager[None]:
        """Run a transaction; if ``lock`` is set, only one at a time with the same lock."""
        ...

    def time(self, moment: datetime) -> Any:
        """Return a time in the format of its columns."""
        ...

    def array(self, numbers: Array) -> Any:
        """Return integers in the format that ``:each(?)`` takes."""
        ...

    def hold(self, lock: str) -> bool:
        """Take a lock that lasts as long as this connection; False if another has it."""
        ...

    def let_go(self, lock: str) -> None:
        """Release a lock."""
        ...

    def held(self, lock: str) -> bool:
        """Tell whether any connection holds a lock."""
        ...

    def create(self, table: str, columns: Sequence[TableColumn]) -> None:
        """Create a table; the first column is its key."""
        ...

    def index(self, table: str, key: str) -> None:
        """Index a table by a column; nothing is written to the table afterwards.

        Called in a transaction. Raises Duplicates.
        """
        ...

    def appender(self, table: str, columns: Sequence[TableColumn]) -> Callable[[list[Keys]], None]:
        """Return a function that appends rows to a table; it takes a list of columns."""
        ...

    def append_rejects(self, run_id: int, rejects: list[Reject]) -> None:
        """Append rejects to a run."""
        ...

    def blobs(self, query: str, values: Sequence[Any]) -> list[bytes]:
        """Return the single column of a query, which holds non-null bytes, in any order."""
        ...

    def relations(self) -> list[str]:
        """Return the names of all runs' tables and views, views first."""
        ...

    def drop(self, relation: str) -> None:
        """Drop a run's table or view, unless a reader holds it for longer than a moment."""
        ...

    def close(self) -> None:
        """Close the connection, which releases its locks."""
        ...


def quoted(identifier: str) -> str:
    """Quote an identifier. The layout's names contain no quotes."""
    return f'"{identifier}"'


def table(name: str) -> str:
    """Return a run's table name as used in statements."""
    return f'@"{name}"'
