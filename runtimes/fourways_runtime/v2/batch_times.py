"""Estimates a batch's duration from its rows, by a linear fit that favors recent measurements.

Pure: the caller measures. A model's time is roughly a constant per call plus a constant per row.
Only batches of different sizes show which of the two dominates. If all batches had one size, their
time is attributed to the rows alone.
"""

from __future__ import annotations

_KEPT = 0.96
"""Factor by which each new measurement reduces the weight of the earlier ones."""

_SPREAD = 1e-3
"""Relative variance of the row counts below which all batches count as one size."""

_SHARE = 0.9
"""Share of batches that take at most :attr:`BatchTimes.margin` times their estimate."""

_STEP = 0.05
_LEAST, _FIRST, _MOST = 1.1, 1.18, 1.6


class BatchTimes:
    """Estimated seconds of a batch: ``call + row * rows``."""

    __slots__ = ("_n", "_nn", "_nt", "_t", "_w", "call", "margin", "row")

    def __init__(self) -> None:
        self.call = 0.0
        self.row = 0.0
        self.margin = _FIRST
        """Factor on an estimate that must hold: greater while other work slows down batches."""

        self._w = self._n = self._nn = self._t = self._nt = 0.0

    def note(self, rows: int, seconds: float) -> None:
        """Add the measured time of a batch."""
        n = float(rows)
        # Steps up and down that cancel out where the share is right.
        if self._w and seconds > self.margin * self.seconds(rows):
            self.margin = min(_MOST, self.margin + _STEP * _SHARE)
        else:
            self.margin = max(_LEAST, self.margin - _STEP * (1.0 - _SHARE))
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
        """Return the expected time of so many rows; 0 without any measurement."""
        return self.call + self.row * float(rows)
