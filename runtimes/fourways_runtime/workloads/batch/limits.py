"""The limit on a run's rejects, and the run's counts so far."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from fourways_api import DriftStatus, QualityStatus
from fourways_runtime.scoring.columns import Reject

EXAMPLES = 3
"""Maximum number of rejects that a failed run reports as examples."""


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """``maxRejects``: a count ("100"), or a share of all rows ("1%")."""

    text: str
    total_rows: int | None = None
    """Rows in the table, if known from the start."""

    def allowed(self, rows: int) -> Fraction:
        """Return how many of ``rows`` rows may be rejected."""
        if self.text.endswith("%"):
            return Fraction(self.text[:-1]) / 100 * rows
        return Fraction(self.text)

    def surely_exceeded(self, rejects: int) -> bool:
        """Tell, during the run, whether the limit is exceeded whatever rows are still to come."""
        if self.text.endswith("%") and self.total_rows is None:
            return False
        return rejects > self.allowed(self.total_rows or 0)

    def exceeded(self, rejects: int, rows: int) -> bool:
        """Tell, at the end, whether too many of ``rows`` rows were rejected."""
        return rejects > self.allowed(rows)


# A value as scoring quotes it, then what is wrong with it. Texts are quoted as in Python, so none
# can pretend to be more than the value.
_QUOTED = re.compile(
    r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+.\w]+) ((?:is|does not|came as) .*)""", re.DOTALL
)
_WITHOUT_VALUES = re.compile(
    r"missing|not a number|\d+ elements at depth \d+, shape \[[\d, ]*\] was expected"
    r"|a later row has the same key|the model does not return for this row"
    r"|the model answered (?:NaN|-?inf)"
    # The parser's messages name what it expected, and quote nothing.
    r"|(?:line \d+(?: from byte \d+ on)?: )?it is not JSON(?:: [A-Za-z0-9 ,_-]{0,80})?"
)


def described(reject: Reject) -> str:
    """Return position, field and kind of fault of a reject, without its key and its value.

    Keys and values are personal data, and this text goes to status, events and logs. A reason of an
    unknown form is left out.
    """
    if _WITHOUT_VALUES.fullmatch(reject.reason):
        return f"row {reject.row}: {reject.field}: {reject.reason}"
    if found := _QUOTED.fullmatch(reject.reason):
        return f"row {reject.row}: {reject.field} {found[1]}"
    return f"row {reject.row}: {reject.field}"


def cure_of(examples: Sequence[Reject]) -> str:
    """Return advice on how to fix rejects like these."""
    absent = any(reject.reason == "missing" for reject in examples)
    nullable = "set nullable: true on inputs that may be missing (null or NaN), " if absent else ""
    return f"{nullable}correct the rows, or raise spec.batch.maxRejects"


@dataclass(slots=True)
class RunTally:
    """The counts of a run so far."""

    rows: int = 0
    """Rows read, valid and rejected."""

    rejects: int = 0
    digest: str | None = None
    examples: list[Reject] = field(default_factory=list)
    drift: DriftStatus | None = None
    """How the run's records differ from those of the training, once it is published."""

    quality: QualityStatus | None = None
    """How well predictions agree with labels, once it is published."""

    def refused(self, rejects: list[Reject]) -> None:
        """Count rejects and keep the first few as examples."""
        self.rejects += len(rejects)
        self.examples += rejects[: EXAMPLES - len(self.examples)]
