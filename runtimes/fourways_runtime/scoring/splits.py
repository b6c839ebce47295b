"""A part of a table, as it is written down in a run's ledger. Needs no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a table that one worker reads from its start to its end.

    The same table always gives the same splits, whoever asks: they are written down when a run
    begins, and read by other workers, later.
    """

    number: int
    """From 0; rows of a later split are further down the table."""

    file: str
    """Where its rows are, as told to people."""

    detail: dict[str, Any]
    """What the table needs to find them; plain JSON."""

    rows: int | None
    """How many rows it has, where that is known without reading them."""

    fingerprint: str
    """What the bytes were when the run began; others are not read."""

    first: int | None = None
    """Position of its first row in the table, where that is known."""

    @property
    def start(self) -> int:
        """Position its rows are numbered from: in the table, or else beyond every split before."""
        return self.number << 32 if self.first is None else self.first


@dataclass(frozen=True, slots=True)
class Section:
    """Some rows of a split that stand together, and what tells whether they are as they were."""

    split: Split
    """The rows, as a split of their own."""

    digest: str | None = None
    """The same in every run in which the table's bytes there are the same; None where nobody can
    tell without reading the rows."""


@dataclass(frozen=True, slots=True)
class Newer:
    """Rows wanted only: those whose ``column`` is at least ``value``, or missing."""

    column: str
    value: Any
    """A number, a text, or a date or time in ISO 8601."""
