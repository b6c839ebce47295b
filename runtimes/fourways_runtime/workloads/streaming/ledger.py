"""The store behind one lock, with the patience of a running worker.

Reader, scorer and writer thread share one connection. Where the store is away, questions are asked
again until it is back, or has been away for too long; a commit never is: nobody knows what became
of it, and the positions have to be asked first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TypeVar

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.brokers.source import OUTAGE_SECONDS
from fourways_runtime.io.store.streams.stream import DeadLetter, Move, Position, StreamWriter
from fourways_runtime.scoring.columns import Predictions

RETRY_SECONDS = 0.25
T = TypeVar("T")


class StreamLedger:
    """What a stream worker asks of the store. Safe to call from several threads."""

    def __init__(self, writer: StreamWriter, stop: threading.Event) -> None:
        self._writer = writer
        self._stop = stop
        self._lock = threading.Lock()
        self._away: float | None = None

    @property
    def available(self) -> bool:
        """Tell whether the store answered when it was last asked."""
        return self._away is None

    def positions(self, partitions: Mapping[int, int]) -> dict[int, Position]:
        """Say where partitions stand; see StreamWriter."""
        return self._patiently(lambda: self._writer.positions(partitions))

    def begin(self, held: Mapping[int, int]) -> dict[int, int]:
        """Count an attempt. Raises Fenced."""
        return self._patiently(lambda: self._writer.begin(held))

    def lead(self) -> bool:
        """Take or keep the lead."""
        return self._patiently(self._writer.lead)

    def send(
        self,
        moves: Sequence[Move],
        predictions: Predictions,
        dead: Sequence[DeadLetter],
        attempts: int,
    ) -> None:
        """Begin to write answers and move positions; see StreamWriter."""
        self._once(lambda: self._writer.send(moves, predictions, dead, attempts=attempts))

    def receive(self) -> None:
        """Wait for what was sent first. Raises Fenced, and StoreUnavailable at once."""
        self._once(self._writer.receive)

    def release(self, held: Mapping[int, int]) -> None:
        """Take back attempts that ended no worker. Raises StoreUnavailable at once."""
        self._once(lambda: self._writer.release(held))

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._writer.close()

    def _once(self, ask: Callable[[], T]) -> T:
        with self._lock:
            try:
                answer = ask()
            except StoreUnavailable:
                self._away = self._away or monotonic()
                raise
            self._away = None
            return answer

    def _patiently(self, ask: Callable[[], T]) -> T:
        while True:
            try:
                return self._once(ask)
            except StoreUnavailable:
                since = self._away
                if since is not None and monotonic() - since > OUTAGE_SECONDS:
                    raise
                if self._stop.wait(RETRY_SECONDS):
                    raise
