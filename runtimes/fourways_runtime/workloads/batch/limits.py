"""How many rows a run may refuse, and what it has come to so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from fourways_runtime.scoring.columns import Reject

EXAMPLES = 3
"""How many rejects a run that fails shows."""


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """``maxRejects``: a count ("100"), or a share of all rows ("1%")."""

    text: str
    total_rows: int | None = None
    """Rows in the table, where they are known from the start."""

    def allowed(self, rows: int) -> Fraction:
        """Return how many of ``rows`` rows may be refused."""
        if self.text.endswith("%"):
            return Fraction(self.text[:-1]) / 100 * rows
        return Fraction(self.text)

    def surely_exceeded(self, rejects: int) -> bool:
        """Tell, midway, whether no row still to come can make it good."""
        if self.text.endswith("%") and self.total_rows is None:
            return False
        return rejects > self.allowed(self.total_rows or 0)

    def exceeded(self, rejects: int, rows: int) -> bool:
        """Tell, at the end, whether too many of ``rows`` rows were refused."""
        return rejects > self.allowed(rows)


def cure_of(examples: Sequence[Reject]) -> str:
    """Return what to do about refused rows like these."""
    absent = any(reject.reason == "missing" for reject in examples)
    nullable = "set nullable: true on inputs that may be missing (null or NaN), " if absent else ""
    return f"{nullable}correct the rows, or raise spec.batch.maxRejects"


@dataclass(slots=True)
class RunTally:
    """What a run has come to so far."""

    rows: int = 0
    """Rows read, good and bad."""

    rejects: int = 0
    digest: str | None = None
    examples: list[Reject] = field(default_factory=list)

    def refused(self, rejects: list[Reject]) -> None:
        """Count rejects, and keep the first few to show."""
        self.rejects += len(rejects)
        self.examples += rejects[: EXAMPLES - len(self.examples)]
