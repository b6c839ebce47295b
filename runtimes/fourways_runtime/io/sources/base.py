"""A table as the batch shell sees it, whatever it is written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from fourways_api import Contract
from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.columns import Reject, Rows
from fourways_runtime.scoring.splits import Newer, Section, Split

SPLIT_ROWS = 131_072
"""Rows of a split where nobody says."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a table: raw columns, and the rows that could not even be told apart."""

    batch: pa.RecordBatch
    rows: Rows
    """Position of each row in the table, (N,)."""

    rejects: list[Reject] = field(default_factory=list)
    watermark: Any = None
    """Values of the column that tells what is new, where the table has it as text; (N,)."""


class Table(Protocol):
    """A table of one or many files."""

    @property
    def total_rows(self) -> int | None:
        """How many rows there are, where cutting the table told without reading them."""
        ...

    def splits(self, rows: int) -> list[Split]:
        """Cut the table into parts of about ``rows`` rows, in order.

        All of the table is looked at here, so that what is wrong with it is told before anything
        is scored.

        Raises:
            SourceError: a file or column is missing, or a column is of a type that cannot stand
                for the contract's; the message names it and what was there instead.
            FetchFailed: trying again may help.

        """
        ...

    def why_incomparable(self, newer: Newer) -> str | None:
        """Say why its rows cannot be held against the last run's highest value; None if they can.

        Asked after the table was cut. A run scores everything then.
        """
        ...

    def read(self, split: Split, newer: Newer | None = None) -> Iterator[Chunk]:
        """Read a part, in order; with ``newer`` older rows may be left out.

        It need not be the one who cut the table: a part says where it is.

        Raises:
            SourceError: it is gone, damaged, or changed since the table was cut.
            FetchFailed: trying again may help.

        """
        ...

    def sections(self, split: Split) -> Iterator[Section]:
        """Cut a part further, into rows that can be told to be as they were without reading them.

        Together they are the part, in order. Raises as :meth:`read`.
        """
        ...

    def chunks(self) -> Iterator[Chunk]:
        """Read the table from its start, in order. Raises SourceError, FetchFailed."""
        ...


def wanted(contract: Contract) -> tuple[str, ...]:
    """Return the columns a table must have: the entity key and the inputs."""
    names = [contract.entity_key.name, *(field.name for field in contract.inputs)]
    return tuple(dict.fromkeys(names))


def check_more(columns: tuple[str, ...], found: list[str], file: str) -> None:
    """Check that the columns wanted beside the contract's are there. Raises SourceError."""
    for name in columns:
        if name not in found:
            raise SourceError(f"{file}: column {name} is missing, which tells what is new")


def _missing(name: str, found: list[str], file: str) -> str:
    listed = ", ".join(found[:50]) + (", …" if len(found) > 50 else "")
    return f"{file}: column {name} is missing; the file has {listed or 'none'}"


def check_names(
    contract: Contract, found: list[str], file: str, shown: list[str] | None = None
) -> None:
    """Check that each column wanted is there once; ``shown`` are the columns to list if not.

    Raises:
        SourceError: naming it and what was there instead.

    """
    for name in wanted(contract):
        if name not in found:
            raise SourceError(_missing(name, found if shown is None else shown, file))
        if found.count(name) > 1:
            raise SourceError(f"{file}: column {name} occurs {found.count(name)} times")


class Absent:
    """Which inputs the files of one table do not have, and whether that is all right.

    A nullable input may be absent in some files (it was added later), and is null there. One that
    no file has is a name gone astray.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._nullable = [field.name for field in contract.inputs if field.nullable]
        self._seen: set[str] = set()
        self._names: list[str] = []
        self._files = 0
        self._file = ""

    def of(self, found: list[str], file: str) -> dict[str, None]:
        """Look at the columns of a file; return the nullable inputs it does not have, as nulls.

        Raises:
            SourceError: another column is missing, or one occurs twice.

        """
        missing = [name for name in self._nullable if name not in found]
        check_names(self._contract, [*found, *missing], file, shown=found)
        self._seen.update(found)
        self._names, self._file, self._files = found, file, self._files + 1
        return dict.fromkeys(missing)

    def check(self) -> None:
        """Check, once all files were looked at, that each nullable input is in one of them."""
        if not self._files:
            return
        for name in self._nullable:
            if name not in self._seen:
                where = self._file if self._files == 1 else "the table"
                raise SourceError(_missing(name, self._names, where))


def completed(
    batch: pa.RecordBatch, columns: Sequence[str], fixed: Mapping[str, str | None]
) -> pa.RecordBatch:
    """Add the columns that are not in the file but in the names of its folders."""
    if batch.num_columns == len(columns):
        return batch
    arrays: list[Any] = []
    for name in columns:
        if name in batch.schema.names:
            arrays.append(batch.column(name))
        elif fixed[name] is None:
            arrays.append(pa.nulls(batch.num_rows))
        else:
            arrays.append(pa.repeat(pa.scalar(fixed[name], pa.string()), batch.num_rows))
    return pa.RecordBatch.from_arrays(arrays, list(columns))
