"""The writer thread: micro-batches are written while the next ones are scored.

Batches are written in order, and the next one is sent before the response to the previous one is
read, so the store never waits for the worker between them. After a failed batch, nothing more is
sent until the worker has noted the failure: the following batches start at a position that the
failed one never reached. The store rejects any that were already sent for the same reason.

A failure is raised by the next call, and also reported at once by ``failed``, since there may be no
next call while the source is quiet.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from fourways_runtime.io.store.streams.stream import DeadLetter, Move, QuestionAnswer
from fourways_runtime.scoring.columns import Key, Predictions

from .ledger import StreamLedger

SENT = 2
"""Maximum number of batches sent to the store at a time: the one it processes and the next."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The results of a micro-batch, ready to be written."""

    moves: Sequence[Move]
    predictions: Predictions
    dead: Sequence[DeadLetter]
    deleted: Sequence[Key] = ()
    """Keys whose stored prediction is to be deleted; none of them is in ``predictions``."""

    answered: Sequence[QuestionAnswer] = ()
    """Those of the predictions that answer requests."""

    attempts: int = 1
    stored: Callable[[], None] = lambda: None
    """Called once the batch is in the store."""

    def __len__(self) -> int:
        return len(self.predictions) + len(self.dead) + len(self.deleted)


class Committer:
    """Writes batches on a separate thread; at most one is queued behind those being written.

    Args:
        ledger: The ledger to write to.
        done: Called with each batch once it is in the store, and the seconds the write took.
        failed: Called once after a failure, from the writer thread; it must wake the thread that
            calls :meth:`check`.

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
        """Queue a batch as soon as there is room. Raises the error of an earlier failed batch."""
        with self._changed:
            while self._waiting is not None and self._failure is None:
                self._changed.wait()
            self._raise()
            self._waiting = batch
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the error of a failed batch, if there is one."""
        with self._changed:
            self._raise()

    def settle(self) -> None:
        """Wait until everything is written. Raises the error of a failed batch."""
        with self._changed:
            while self._failure is None and (self._busy or self._waiting is not None):
                self._changed.wait()
            self._raise()

    def reset(self) -> None:
        """Drop what is not yet written, and clear the failure."""
        with self._changed:
            self._waiting = None
            while self._busy:
                self._changed.wait()
            self._waiting = None
            self._failure = None

    def close(self) -> None:
        """End the thread; a queued batch is dropped."""
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
                while self._waiting is None and not (self._sent or self._ended):
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
        """Send a batch; without one, read the response to the oldest batch sent."""
        if batch is not None:
            started = perf_counter()
            self._ledger.send(
                batch.moves,
                batch.predictions,
                batch.dead,
                batch.deleted,
                batch.answered,
                batch.attempts,
            )
            self._sent.append((batch, started))
            return
        written, started = self._sent.popleft()
        self._ledger.receive()
        self._done(written, perf_counter() - started)

    def _failed(self, error: Exception) -> None:
        while self._sent:
            self._sent.popleft()
            # The first failure counts; the store's positions show what was written nevertheless.
            with suppress(Exception):
                self._ledger.receive()
        with self._changed:
            self._busy = False
            self._failure, self._waiting = error, None
            self._changed.notify_all()
        self._report_failure()
