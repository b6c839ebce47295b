"""The interface of a table for the batch workload, whatever its format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from fourways_api import Contract
from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.columns import Reject, Rows
from fourways_runtime.scoring.splits import Newer, Section, Split

_NAME = re.compile(r"[^\W\d][\w $/-]{0,39}")
"""What messages quote as the name of a column."""

SPLIT_ROWS = 131_072
"""Default number of rows per split."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a table: raw columns, and the rows that could not be parsed at all."""

    batch: pa.RecordBatch
    rows: Rows
    """Position of each row in the table, (N,)."""

    rejects: list[Reject] = field(default_factory=list)
    watermark: Any = None
    """Values of the watermark column, where the table stores it as text; (N,)."""


class Table(Protocol):
    """A table of one or many files."""

    @property
    def total_rows(self) -> int | None:
        """Number of rows, if cutting the table showed it without reading them."""
        ...

    def splits(self, rows: int) -> list[Split]:
        """Cut the table into parts of about ``rows`` rows, in order.

        This inspects the whole table, so that faults are reported before anything is scored.

        Raises:
            SourceError: a file or column is missing, or a column has a type that cannot be
                converted to the contract's; the message names it and what was found instead.
            FetchFailed: a retry may help.

        """
        ...

    def why_incomparable(self, newer: Newer) -> str | None:
        """Say why the rows cannot be compared with the last watermark; None if they can.

        Called after the table was cut. If they cannot be compared, a run scores everything.
        """
        ...

    def read(self, split: Split, newer: Newer | None = None) -> Iterator[Chunk]:
        """Read a part, in order; with ``newer``, older rows may be left out.

        The object that reads need not be the one that cut the table: a part contains its location.

        Raises:
            SourceError: the part is gone, damaged, or changed since the table was cut.
            FetchFailed: a retry may help.

        """
        ...

    def sections(self, split: Split) -> Iterator[Section]:
        """Cut a part further, into rows whose changes can be detected without reading them.

        Together the sections are the part, in order. Raises as :meth:`read`.
        """
        ...

    def chunks(self) -> Iterator[Chunk]:
        """Read the table from its start, in order. Raises SourceError, FetchFailed."""
        ...


def wanted(contract: Contract) -> tuple[str, ...]:
    """Return the columns that a table must have: the entity key and the inputs."""
    names = [contract.entity_key.name, *(field.name for field in contract.flat_inputs)]
    return tuple(dict.fromkeys(names))


def check_more(columns: tuple[str, ...], found: list[str], file: str) -> None:
    """Check that the columns required besides the contract's exist. Raises SourceError."""
    for name in columns:
        if name not in found:
            raise SourceError(f"{file}: column {name} is missing; the watermark is read from it")


def _named(column: str) -> str:
    """Return a column's name for a message, if it is one: the first line may be anything."""
    if _NAME.fullmatch(column):
        return column
    return f"(a text of {len(column)} characters)"


def _missing(name: str, found: list[str], file: str) -> str:
    listed = ", ".join(map(_named, found[:50])) + (", …" if len(found) > 50 else "")
    cure = next((how for sign, how in _SEPARATORS.items() if sign in found[0]), "") if found else ""
    if any("\0" in other for other in found):
        cure = "; it is not UTF-8 (it may be UTF-16): convert the file to UTF-8"
    if not cure and any(other.strip() == name for other in found):
        cure = "; remove the blanks around its name in the first line"
    return f"{file}: column {name} is missing; the file has {listed or 'none'}{cure}"


_SEPARATORS = {
    sign: f"; its columns may be separated by {word}: write commas"
    for sign, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars"))
}


def check_names(
    contract: Contract, found: list[str], file: str, shown: list[str] | None = None
) -> None:
    """Check that each required column occurs once; ``shown`` are the columns to list if not.

    Raises:
        SourceError: it names the column and what was found instead.

    """
    for name in wanted(contract):
        if name not in found:
            raise SourceError(_missing(name, found if shown is None else shown, file))
        if found.count(name) > 1:
            raise SourceError(f"{file}: column {name} occurs {found.count(name)} times")


def check_case(name: str, found: Iterable[str], file: str) -> None:
    """Check that an absent nullable column is not there in other letters: it would be null.

    Raises:
        SourceError: it names both.

    """
    for other in found:
        if other.casefold() == name.casefold():
            raise SourceError(
                f"{file}: column {name} is missing, and {_named(other)} is there; give both the "
                "same upper and lower case"
            )


class Absent:
    """The inputs that are absent from the files of one table, and whether that is allowed.

    A nullable input may be absent from some files (it was added later), and is null there. If it is
    absent from all files, its name is wrong.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._nullable = [field.name for field in contract.flat_inputs if field.nullable]
        self._seen: set[str] = set()
        self._names: list[str] = []
        self._files = 0
        self._file = ""

    def of(self, found: list[str], file: str) -> dict[str, None]:
        """Inspect the columns of a file; return the absent nullable inputs, as nulls.

        Raises:
            SourceError: another column is missing, or one occurs twice.

        """
        missing = [name for name in self._nullable if name not in found]
        for name in missing:
            check_case(name, found, file)
        check_names(self._contract, [*found, *missing], file, shown=found)
        self._seen.update(found)
        self._names, self._file, self._files = found, file, self._files + 1
        return dict.fromkeys(missing)

    def check(self) -> None:
        """Check, after all files were inspected, that each nullable input is in one of them."""
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
