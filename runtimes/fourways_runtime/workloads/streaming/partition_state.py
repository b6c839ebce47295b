"""A stream worker's state of one partition: the next position, and what is in flight."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .monitor import PartitionProgress

NOT_HELD = 1 << 63
"""The next position of a partition that this worker does not hold; no event reaches it."""


@dataclass(slots=True)
class PartitionState:
    """The worker's state of one partition."""

    next: int
    """The next event to score once everything in flight is written; NOT_HELD after a reset."""

    counted: bool = False
    """Whether the store has counted an attempt of this worker at that position."""

    counted_before: bool = False
    """Whether it may have counted one before the worker's last reset."""

    begun: int = 0
    """How many attempts this worker has counted at ``begun_at``. It survived them, whatever
    happened to the writes."""

    begun_at: int = -1

    isolating: int = 0
    """How many more events to score individually."""

    written: int = 0
    """The position in the store."""

    in_flight: deque[tuple[int, float]] = field(default_factory=deque)
    """The first position of each batch in flight, and when that event was published."""

    def begin(self) -> int:
        """Note that an attempt is counted at the next position; return those before it."""
        before = self.survived(self.next, self.counted)
        self.begun_at, self.begun = self.next, before + 1
        self.counted = True
        return before

    def survived(self, position: int, counted: bool) -> int:
        """Return how many of a position's attempts are this worker's own.

        ``counted``: whether it may have counted one there with the commit that led to it.
        """
        return self.begun if self.begun_at == position else int(counted)

    def note(self, position: int, published: float | None) -> None:
        """Note that events from ``position`` on are in flight."""
        if published is not None:
            self.in_flight.append((position, published))

    def wrote(self, end: int) -> None:
        """Note the store's position."""
        self.written = end
        while self.in_flight and self.in_flight[0][0] < end:
            self.in_flight.popleft()

    def progress(self) -> PartitionProgress:
        """Return the partition's progress. May be called from any thread."""
        try:
            oldest = self.in_flight[0][1]
        except IndexError:
            return PartitionProgress(self.written, None)
        return PartitionProgress(self.written, oldest)

    @property
    def held(self) -> bool:
        """Tell whether this worker holds the partition."""
        return self.next != NOT_HELD
