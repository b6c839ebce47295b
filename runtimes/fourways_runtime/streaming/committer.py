"""The writer thread: one micro-batch is written while the next one is scored.

Batches are written in the order they come. After one that failed nothing more is written until the
failure was taken note of: what follows it starts where it never ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..records import Predictions
from ..store.stream import DeadLetter, Move


@dataclass(frozen=True, slots=True)
class Batch:
    """What a micro-batch came to, ready to be written."""

    moves: Sequence[Move]
    predictions: Predictions
    dead: Sequence[DeadLetter]
    tries: int = 1


class Committer:
    """Writes batches on a thread of its own; at most one waits for the one being written."""

    def __init__(self, write: Callable[[Batch], None]) -> None:
        self._write = write
        self._changed = threading.Condition()
        self._waiting: Batch | None = None
        self._busy = False
        self._ended = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Hand a batch over, as soon as there is room. Raises what an earlier one failed with."""
        with self._changed:
            while self._waiting is not None and self._failure is None:
                self._changed.wait()
            self._raise()
            self._waiting = batch
            self._changed.notify_all()

    def settle(self) -> None:
        """Wait until all is written. Raises what a batch failed with."""
        with self._changed:
            while self._failure is None and (self._busy or self._waiting is not None):
                self._changed.wait()
            self._raise()

    def reset(self) -> None:
        """Drop what is not written, and forget the failure."""
        with self._changed:
            self._waiting = None
            while self._busy:
                self._changed.wait()
            self._waiting = None
            self._failure = None

    def close(self) -> None:
        """End the thread; what waits is dropped."""
        with self._changed:
            self._ended = True
            self._waiting = None
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._ended:
                    self._changed.wait()
                if self._ended or self._waiting is None:
                    return
                batch, self._waiting, self._busy = self._waiting, None, True
                self._changed.notify_all()
            failure: Exception | None = None
            try:
                self._write(batch)
            except Exception as error:  # noqa: BLE001  (whoever comes next is told)
                failure = error
            with self._changed:
                self._busy = False
                if failure is not None:
                    self._failure, self._waiting = failure, None
                self._changed.notify_all()
