"""Decides where a batch is scored: on the event loop, or on a worker thread.

A quick batch runs on the event loop, any other on the thread, so that the loop keeps answering
probes. Only real batches show what is quick, because the synthetic records of the warm-up may take
a different path through the model. The first batches therefore run on the thread, and a batch that
turns out slow on the loop moves later ones to the thread for a while.
"""

from __future__ import annotations

from time import monotonic

from .batch_times import BatchTimes

INLINE_SECONDS = 0.001
"""Maximum duration of a batch that runs on the event loop."""

_PROBATION = 8
"""Number of batches of real requests that run on the thread before one may run on the loop."""

_SLOW, _VERY_SLOW = 4 * INLINE_SECONDS, 200 * INLINE_SECONDS
_SLOW_IN_A_ROW = 3
_DISTRUST, _LONGEST_DISTRUST = 5.0, 60.0


class Placement:
    """Where batches run, by what earlier ones took."""

    def __init__(self, proven: bool) -> None:
        """``proven``: the warm-up is as reliable as batches of real requests."""
        self._quick = BatchTimes()  # CPU time if on the thread, without its waits
        self._probation = 0 if proven else _PROBATION
        self._slow_in_a_row = 0
        self._distrust = _DISTRUST
        self._distrusted_until = 0.0

    def note(self, rows: int, seconds: float) -> None:
        """Take the time of a batch of synthetic records."""
        self._quick.note(rows, seconds)

    def on_the_loop(self, rows: int) -> bool:
        """Return whether a batch of so many rows may run on the event loop."""
        return (
            not self._probation
            and self._quick.seconds(rows) <= INLINE_SECONDS
            and (not self._distrusted_until or self._trusts_again())
        )

    def ran_on_the_thread(self, rows: int, computed: float) -> None:
        """Take the CPU time (s) of a batch that ran on the thread."""
        self._quick.note(rows, computed)
        if self._probation:
            self._probation -= 1

    def ran_on_the_loop(self, rows: int, seconds: float) -> None:
        """Take the time (s) of a batch that ran on the loop."""
        self._quick.note(rows, min(seconds, _SLOW))
        if seconds < _SLOW:
            self._slow_in_a_row = 0
            return
        # A single slow batch may be the machine's fault: the process lost a time slice.
        self._slow_in_a_row += 1
        if seconds > _VERY_SLOW or self._slow_in_a_row >= _SLOW_IN_A_ROW:
            self._slow_in_a_row = 0
            self._distrusted_until = monotonic() + self._distrust
            self._distrust = min(2 * self._distrust, _LONGEST_DISTRUST)

    def _trusts_again(self) -> bool:
        if monotonic() < self._distrusted_until:
            return False
        self._distrusted_until = 0.0
        return True
