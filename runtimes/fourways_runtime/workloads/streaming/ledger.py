"""A running worker's access to the store: behind one lock, with bounded retries.

The worker, reader, writer and monitor threads share one connection. While the store is unavailable,
queries are retried until it answers or the outage has lasted too long. A commit is never retried:
its outcome is unknown, and the positions must be read first.

A store can also hang (locked, stopped, a network that drops packets): then a call does not return,
and no error is raised. The ledger therefore records when the running call started, and a thread
that watches the worker detects a hang through :meth:`StreamLedger.problem` and
:meth:`StreamLedger.watch`. A store that can be read but not written is an outage too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TypeVar

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.brokers.source import OUTAGE_SECONDS
from fourways_runtime.io.store.streams.stream import (
    DeadLetter,
    Move,
    Position,
    QuestionAnswer,
    StreamWriter,
)
from fourways_runtime.retry import Outage, retry_until_available
from fourways_runtime.scoring.columns import Key, Predictions

RETRY_SECONDS = 0.25
HUNG_SECONDS = 5.0
"""A call that takes longer makes the worker not ready."""

PING_SECONDS = 1.5
"""An idle store is pinged after this many seconds without a call: at each look of the monitor, so
that an outage is reported while callers of the gateway notice it."""

LOGIN_SECONDS = 15.0
"""How long a rejected login is retried: long enough for a rotated Secret to arrive, and short
enough to report a wrong one soon."""

_GRACE_SECONDS = 2.0
"""Extra time for the thread that waits for the store to report an outage itself."""

T = TypeVar("T")


class StreamLedger:
    """A stream worker's interface to the store. Safe to call from several threads."""

    def __init__(
        self,
        writer: StreamWriter,
        stop: threading.Event,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._writer = writer
        self._stop = stop
        self._now = now
        self._lock = threading.Lock()
        self._outage = Outage(OUTAGE_SECONDS, now)
        self._write_outage = Outage(OUTAGE_SECONDS, now)
        self._error: StoreUnavailable | None = None
        """The latest error, while there is an outage."""

        self._called: float | None = None
        """When the running call started; None if there is none."""

        self._answered = now()

    def problem(self) -> str:
        """Return why the store cannot be used now, or an empty string."""
        fault = self.fault()
        return str(fault) if fault else ""

    def fault(self) -> StoreUnavailable | None:
        """Return the error for which the store cannot be used now, or None."""
        if self._error is not None:
            return self._error
        called = self._called
        waited = 0.0 if called is None else self._now() - called
        return StoreUnavailable(_hangs(waited)) if waited > HUNG_SECONDS else None

    def watch(self) -> None:
        """Check from another thread whether the store has been unavailable for too long.

        Raises:
            StoreUnavailable: A call or an outage has lasted for more than OUTAGE_SECONDS.

        """
        now, called, error = self._now(), self._called, self._error
        if called is not None and now - called > OUTAGE_SECONDS:
            raise StoreUnavailable(_hangs(now - called))
        if error is None:
            return
        limit = LOGIN_SECONDS if error.login_refused else OUTAGE_SECONDS + _GRACE_SECONDS
        since = [s for s in (self._outage.since, self._write_outage.since) if s is not None]
        if since and now - min(since) > limit:
            raise error

    def ping(self) -> None:
        """Ping an idle store and record an outage. Never waits for another call.

        Without this, an outage during a quiet period would be noticed only at the next event.
        """
        if self._now() - self._answered < PING_SECONDS or not self._lock.acquire(blocking=False):
            return
        try:
            self._call(self._writer.ping)
        except StoreUnavailable:
            pass
        finally:
            self._lock.release()

    def positions(self, partitions: Mapping[int, int]) -> dict[int, Position]:
        """Return the positions of partitions; see StreamWriter."""
        return self._patiently(lambda: self._writer.positions(partitions))

    def begin(self, held: Mapping[int, int]) -> dict[int, int]:
        """Count an attempt. Raises Fenced."""
        # A small write may succeed where a commit does not, so it does not end a write outage.
        return self._patiently(lambda: self._writer.begin(held), writes=True)

    def lead(self) -> bool:
        """Acquire or keep the leadership of the stream; return whether this worker leads."""
        return self._patiently(self._writer.lead)

    def move(self, partition: int, start: int, end: int) -> None:
        """Move a position backward or forward without events. Raises Fenced."""

        move = Move(partition, start, end)
        self._patiently(lambda: self._writer.move(move), writes=True)

    def send(
        self,
        moves: Sequence[Move],
        predictions: Predictions,
        dead: Sequence[DeadLetter],
        deleted: Sequence[Key],
        answered: Sequence[QuestionAnswer],
        attempts: int,
    ) -> None:
        """Start to write predictions and move positions; see StreamWriter."""
        self._once(
            lambda: self._writer.send(
                moves, predictions, dead, deleted, answered, attempts=attempts
            ),
            writes=True,
        )

    def receive(self) -> None:
        """Wait for the oldest batch sent. Raises Fenced, or StoreUnavailable without retrying."""
        self._once(self._writer.receive, writes=True, written=True)

    def release(self, held: Mapping[int, int]) -> None:
        """Release attempts that killed no worker. Raises StoreUnavailable without retrying."""
        self._once(lambda: self._writer.release(held))

    def confirm_writes(self) -> None:
        """End an outage of writes: the positions say that a commit took effect after all.

        The connection was lost between the commit and its confirmation. Until the next event comes,
        there may be nothing to write that would end the outage.
        """
        with self._lock:
            self._write_outage.ended()
            if self._outage.since is None:
                self._error = None

    def check_writes(self, error: StoreUnavailable) -> None:
        """Raise ``error`` if writing has failed for more than OUTAGE_SECONDS."""
        self._write_outage.failed(error)

    def close(self) -> None:
        """Close the connection, unless a hanging call still uses it."""
        if self._lock.acquire(timeout=HUNG_SECONDS):
            try:
                self._writer.close()
            finally:
                self._lock.release()

    def _once(self, ask: Callable[[], T], *, writes: bool = False, written: bool = False) -> T:
        with self._lock:
            return self._call(ask, writes=writes, written=written)

    def _call(self, ask: Callable[[], T], *, writes: bool = False, written: bool = False) -> T:
        self._called = started = self._now()
        try:
            answer = ask()
        except StoreUnavailable as error:
            self._error = error
            for outage in (self._outage, self._write_outage) if writes else (self._outage,):
                if outage.since is None:
                    outage.since = started
            raise
        finally:
            self._called = None
        self._answered = self._now()
        self._outage.ended()
        if written:
            self._write_outage.ended()
        if self._write_outage.since is None:
            self._error = None
        return answer

    def _patiently(self, ask: Callable[[], T], *, writes: bool = False) -> T:
        def pause(seconds: float) -> None:
            if self._stop.wait(seconds):
                raise self._error or StoreUnavailable("the worker stops")

        since = self._outage.since
        left = OUTAGE_SECONDS if since is None else since + OUTAGE_SECONDS - self._now()
        return retry_until_available(
            lambda: self._once(ask, writes=writes),
            left,
            pause=RETRY_SECONDS,
            sleep=pause,
            now=self._now,
        )


def _hangs(seconds: float) -> str:
    return f"the prediction store has not responded for {seconds:.0f} s"
