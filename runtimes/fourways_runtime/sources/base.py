"""A table as the batch shell sees it, whatever it is written in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from fourways_api import Contract

from ..errors import SourceError
from ..records import Reject, Rows


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a table: raw columns, and the rows that could not even be told apart."""

    batch: pa.RecordBatch
    rows: Rows
    """Position of each row in the table, (N,)."""

    rejects: list[Reject] = field(default_factory=list)


class Table(Protocol):
    """A table of one or many files."""

    total_rows: int | None
    """How many rows there are, where that is known without reading them."""

    def chunks(self) -> Iterator[Chunk]:
        """Read the table from its start, in order. Raises SourceError, FetchFailed."""
        ...


def wanted(contract: Contract) -> tuple[str, ...]:
    """Return the columns a table must have: the entity key and the inputs."""
    names = [contract.entity_key.name, *(field.name for field in contract.inputs)]
    return tuple(dict.fromkeys(names))


def check_names(contract: Contract, found: list[str], file: str) -> None:
    """Check that each column wanted is there once.

    Raises:
        SourceError: naming it and what was there instead.

    """
    for name in wanted(contract):
        if name not in found:
            listed = ", ".join(found[:50]) + (", …" if len(found) > 50 else "")
            raise SourceError(f"{file}: column {name} is missing; the file has {listed or 'none'}")
        if found.count(name) > 1:
            raise SourceError(f"{file}: column {name} occurs {found.count(name)} times")
