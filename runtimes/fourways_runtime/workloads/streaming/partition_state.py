"""What a stream worker knows of one partition: where it goes on, and what is in flight."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .monitor import PartitionProgress

NOT_HELD = 1 << 63
"""The next position of a partition that this worker does not hold: no event is at or after it."""


@dataclass(slots=True)
class PartitionState:
    """What the worker knows of one partition."""

    next: int
    """The next event to score, once all that is in flight is written; NOT_HELD after a reset."""

    counted: bool = False
    """The store has an attempt of this worker at that position."""

    counted_before: bool = False
    """It may have one from before the worker began anew."""

    isolating: int = 0
    """How many events are still to be scored individually."""

    written: int = 0
    """The position in the store."""

    in_flight: deque[tuple[int, float]] = field(default_factory=deque)
    """Positions in flight, the first of each batch, and when these events were published."""

    def note(self, position: int, published: float | None) -> None:
        """Note that events from here on are in flight."""
        if published is not None:
            self.in_flight.append((position, published))

    def wrote(self, end: int) -> None:
        """Note the store's position."""
        self.written = end
        while self.in_flight and self.in_flight[0][0] < end:
            self.in_flight.popleft()

    def progress(self) -> PartitionProgress:
        """Return how far the partition is. Called from any thread."""
        try:
            oldest = self.in_flight[0][1]
        except IndexError:
            return PartitionProgress(self.written, None)
        return PartitionProgress(self.written, oldest)

    @property
    def held(self) -> bool:
        """Tell whether this worker holds the partition."""
        return self.next != NOT_HELD
