"""The writer thread: micro-batches are written while the next ones are scored.

Batches are written in the order they come, and the next one is sent before the answer to the one
before it is read: the store goes from one to the other without waiting for the worker. After one
that failed, nothing more is sent until the worker has noted the failure: what follows it starts
where it never ended, and the store refuses what was sent already for just that reason.

A failure is raised by the next call, and reported at once by ``failed``: if the source is quiet,
there may be no next call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from fourways_runtime.io.store.streams.stream import DeadLetter, Move
from fourways_runtime.scoring.columns import Key, Predictions

from .ledger import StreamLedger

SENT = 2
"""Batches the store may have at a time: one it works on, and the next."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """What a micro-batch came to, ready to be written."""

    moves: Sequence[Move]
    predictions: Predictions
    dead: Sequence[DeadLetter]
    deleted: Sequence[Key] = ()
    """Keys whose stored answer is to be deleted; none of them is in ``predictions``."""

    attempts: int = 1

    def __len__(self) -> int:
        return len(self.predictions) + len(self.dead) + len(self.deleted)


class Committer:
    """Writes batches on a thread of its own; at most one waits for those being written.

    Args:
        ledger: Where to.
        done: Called with each batch that is in the store, and the seconds that took.
        failed: Called once after a failure, from the writer thread: it must wake the thread that
            is to call :meth:`check`.

    """

    def __init__(
        self,
        ledger: StreamLedger,
        done: Callable[[EventBatch, float], None],
        failed: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._done = done
        self._report_failure = failed
        self._changed = threading.Condition()
        self._waiting: EventBatch | None = None
        self._busy = False
        self._ended = False
        self._failure: Exception | None = None
        self._sent: deque[tuple[EventBatch, float]] = deque()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, batch: EventBatch) -> None:
        """Hand a batch over, as soon as there is room. Raises what an earlier one failed with."""
        with self._changed:
            while self._waiting is not None and self._failure is None:
                self._changed.wait()
            self._raise()
            self._waiting = batch
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what a batch failed with, if one did."""
        with self._changed:
            self._raise()

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
                self._busy = bool(self._sent)
                if not self._busy:
                    self._changed.notify_all()
                while not (self._waiting or self._sent or self._ended):
                    self._changed.wait()
                if self._ended and not self._sent:
                    return
                batch = None
                if len(self._sent) < SENT and self._waiting is not None:
                    batch, self._waiting, self._busy = self._waiting, None, True
                    self._changed.notify_all()
            try:
                self._step(batch)
            except Exception as error:  # noqa: BLE001  (raised by check, put and settle)
                self._failed(error)

    def _step(self, batch: EventBatch | None) -> None:
        """Send a batch, or else read the answer to the oldest one sent."""
        if batch is not None:
            started = perf_counter()
            self._ledger.send(
                batch.moves, batch.predictions, batch.dead, batch.deleted, batch.attempts
            )
            self._sent.append((batch, started))
            return
        written, started = self._sent.popleft()
        self._ledger.receive()
        self._done(written, perf_counter() - started)

    def _failed(self, error: Exception) -> None:
        while self._sent:
            self._sent.popleft()
            # The first failure counts; the store's positions say what was written in spite of it.
            with suppress(Exception):
                self._ledger.receive()
        with self._changed:
            self._busy = False
            self._failure, self._waiting = error, None
            self._changed.notify_all()
        self._report_failure()
