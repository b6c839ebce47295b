"""What can befall the operator in the cluster in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from fourways_operator.errors import ApiFault


class Killed(BaseException):
    """The operator's process died here."""


@dataclass
class Faults:
    """What is to go wrong. Writes and reads are counted from 0."""

    kill_before: int | None = None
    kill_after: int | None = None
    answers: dict[int, ApiFault] = field(default_factory=dict)
    """The Nth write is refused with this, and not done."""

    lost_answers: dict[int, ApiFault] = field(default_factory=dict)
    """The Nth write is done, and answered with this."""

    stale_reads: frozenset[int] = frozenset()
    """The Nth read tells of the state as it was before the last change by hand."""

    read_answers: dict[int, ApiFault] = field(default_factory=dict)
    """The Nth read is answered with this."""

    lost_events: frozenset[int] = frozenset()
    doubled_events: frozenset[int] = frozenset()
    delayed_events: frozenset[int] = frozenset()
    """The Nth watch event comes after the one that follows it."""
