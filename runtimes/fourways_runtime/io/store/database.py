"""What the ledger, publishing and the record of runs need of a database; two have it.

Statements are written once: ``@`` in front of a table's name stands for the schema, ``?`` for a
value, ``:now`` for the time by the database's clock, ``:skip`` for passing over rows that others
hold, ``:rowid`` for where a row is, ``:each(?)`` for the numbers of an array. Names are quoted by
:func:`quoted`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from fourways_runtime.scoring.columns import Array, Keys, Reject

from ..table_columns import TableColumn


class Duplicates(Exception):
    """A unique index cannot be made: a key occurs more than once."""


class TableMissing(Exception):
    """A table, or the row others refer to, is no longer there: somebody dropped it."""


class Database(Protocol):
    """One connection to a store. Every call may raise StoreUnavailable.

    Calls may come from several threads; a transaction belongs to one of them.
    """

    streams: bool
    """Whether rows may trickle into an open transaction. If not, others wait for it to end."""

    layered: bool
    """Whether a view over two tables is as quick to look keys up in as a table."""

    exists_hashes: bool
    """Whether EXISTS looks rows up by hash where there is no index. If not, IN does."""

    def second(self) -> Database:
        """Open another connection to the same store."""
        ...

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        ...

    def change(self, query: str, values: Sequence[Any] = ()) -> int:
        """Run a statement and return how many rows it touched. Raises Duplicates, TableMissing."""
        ...

    def transaction(self, lock: str = "") -> AbstractContextManager[None]:
        """Do all or nothing; with a lock, one at a time among all who name the same."""
        ...

    def time(self, moment: datetime) -> Any:
        """Return a time as its columns hold it."""
        ...

    def array(self, numbers: Array) -> Any:
        """Return whole numbers as ``:each(?)`` takes them."""
        ...

    def hold(self, lock: str) -> bool:
        """Take a lock that lives as long as this connection; False where another has it."""
        ...

    def let_go(self, lock: str) -> None:
        """Give back a lock."""
        ...

    def held(self, lock: str) -> bool:
        """Tell whether anybody has a lock."""
        ...

    def create(self, table: str, columns: Sequence[TableColumn]) -> None:
        """Make a table; the first column is its key."""
        ...

    def index(self, table: str, key: str) -> None:
        """Look a table up by a column from now on; nothing is written to it any more.

        Called in a transaction. Raises Duplicates.
        """
        ...

    def appender(self, table: str, columns: Sequence[TableColumn]) -> Callable[[list[Keys]], None]:
        """Return what adds rows to a table, given a column of values each."""
        ...

    def append_rejects(self, run_id: int, rejects: list[Reject]) -> None:
        """Add rejects to a run's."""
        ...

    def blobs(self, query: str, values: Sequence[Any]) -> list[bytes]:
        """Return the one column of a query, which is of bytes without null, in any order."""
        ...

    def relations(self) -> list[str]:
        """Return the names of all runs' tables and views, views first."""
        ...

    def drop(self, relation: str) -> None:
        """Drop a run's table or view, unless a reader holds it for longer than a moment."""
        ...

    def close(self) -> None:
        """Close the connection; its locks go with it."""
        ...


def quoted(identifier: str) -> str:
    """Quote an identifier. The layout's names hold no quote."""
    return f'"{identifier}"'


def table(name: str) -> str:
    """Return a run's table as it is named in statements."""
    return f'@"{name}"'
