"""What a batch takes, by its rows: a line through what was measured, the newest counting most.

Pure: the caller measures. A model's time is nearly that of a call and that of a row; which of the
two weighs more only batches of different sizes tell. Where all were of one size, its time is taken
to be the rows' alone.
"""

from __future__ import annotations

_KEPT = 0.96
"""What a measurement weighs after the next one."""

_SPREAD = 1e-3
"""Relative variance of the rows below which they count as all of one size."""


class BatchTimes:
    """Seconds of a batch: ``call + row * rows``."""

    __slots__ = ("_n", "_nn", "_nt", "_t", "_w", "call", "row")

    def __init__(self) -> None:
        self.call = 0.0
        self.row = 0.0
        self._w = self._n = self._nn = self._t = self._nt = 0.0

    def note(self, rows: int, seconds: float) -> None:
        """Take in what a batch took."""
        n = float(rows)
        self._w = self._w * _KEPT + 1.0
        self._n = self._n * _KEPT + n
        self._nn = self._nn * _KEPT + n * n
        self._t = self._t * _KEPT + seconds
        self._nt = self._nt * _KEPT + n * seconds
        spread = self._w * self._nn - self._n * self._n
        if spread <= _SPREAD * self._w * self._nn:
            self.call, self.row = 0.0, self._t / self._n
            return
        row = (self._w * self._nt - self._n * self._t) / spread
        call = (self._t - row * self._n) / self._w
        if row < 0.0:
            row, call = 0.0, self._t / self._w
        elif call < 0.0:
            row, call = self._nt / self._nn, 0.0
        self.call, self.row = call, row

    def seconds(self, rows: int) -> float:
        """Return what so many rows are expected to take; 0 where nothing was measured."""
        return self.call + self.row * float(rows)
