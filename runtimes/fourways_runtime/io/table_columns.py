"""A column of a table for predictions, in any database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a run's table."""

    name: str
    """Name in the contract."""

    identifier: str
    """Name in the table."""

    kind: str
    """Type in the contract."""

    shape: tuple[int, ...]
