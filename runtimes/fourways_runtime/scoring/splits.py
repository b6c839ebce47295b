"""A part of a table, as recorded in a run's ledger. Needs no library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a table that one worker reads from start to end.

    The same table always gives the same splits in every process: they are recorded when a run
    begins, and read by other workers later.
    """

    number: int
    """From 0; rows of a later split come later in the table."""

    file: str
    """Location of its rows, as shown to people."""

    detail: dict[str, Any]
    """What the table needs to find them; plain JSON."""

    rows: int | None
    """Number of its rows, if known without reading them."""

    fingerprint: str
    """Fingerprint of the bytes when the run began; other bytes are not read."""

    first: int | None = None
    """Position of its first row in the table, if known."""

    hung: list[list[int]] = field(default_factory=list)
    """Positions between which a model did not return, first and last; the workers add them. Where
    both are equal, the row is known."""

    @property
    def start(self) -> int:
        """First position of its rows: in the table, or else beyond those of every earlier split."""
        return self.number << 32 if self.first is None else self.first

    def describe_rows(self, first: int, last: int) -> str:
        """Say for people where rows are, by their first and last position."""
        whole = self.first is not None
        first, last = (at if whole else at - self.start for at in (first, last))
        rows = f"row {first}" if first == last else f"rows {first} to {last}"
        return f"{rows} of {'the source' if whole else self.file}"


@dataclass(frozen=True, slots=True)
class Section:
    """Consecutive rows of a split, with a digest that shows whether they have changed."""

    split: Split
    """The rows, as a split of their own."""

    digest: str | None = None
    """Equal in every run in which the table's bytes there are equal; None if it cannot be
    determined without reading the rows.
    """


@dataclass(frozen=True, slots=True)
class Newer:
    """A filter for new rows: those whose ``column`` is at least ``value``, or missing."""

    column: str
    value: Any
    """A number, a text, or a date or time in ISO 8601."""
