"""The store as a running worker uses it: behind one lock, with a bounded patience.

Worker, reader, writer and monitor thread share one connection. While the store is unavailable,
questions are repeated until it answers or the outage has lasted too long. A commit is never
repeated: its outcome is unknown, and the positions have to be read first.

A store can also hang (locked, stopped, a network that drops packets): then a call does not return,
and no error says so. Therefore the ledger notes since when a call is under way, and whoever watches
the worker from another thread finds out by :meth:`StreamLedger.problem` and
:meth:`StreamLedger.watch`. A store that can be read and not written is an outage too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TypeVar

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.brokers.source import OUTAGE_SECONDS
from fourways_runtime.io.store.streams.stream import DeadLetter, Move, Position, StreamWriter
from fourways_runtime.retry import Outage, retry_until_available
from fourways_runtime.scoring.columns import Key, Predictions

RETRY_SECONDS = 0.25
HUNG_SECONDS = 5.0
"""A call that takes longer makes the worker not ready."""

PING_SECONDS = 5.0
"""After this long without a call the store is asked whether it is still there."""

LOGIN_SECONDS = 15.0
"""How long a refused login is retried. A rotated Secret arrives; a wrong one has to be reported."""

_GRACE_SECONDS = 2.0
"""The thread that waits for the store is given this long to report an outage itself."""

T = TypeVar("T")


class StreamLedger:
    """What a stream worker asks of the store. Safe to call from several threads."""

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
        """The last one, while there is an outage."""

        self._called: float | None = None
        """Since when a call is under way."""

        self._answered = now()

    def problem(self) -> str:
        """Return why the store cannot be used now, or nothing."""
        if self._error is not None:
            return str(self._error)
        called = self._called
        waited = 0.0 if called is None else self._now() - called
        return _hangs(waited) if waited > HUNG_SECONDS else ""

    def watch(self) -> None:
        """Look whether the store has been unavailable for too long, from another thread.

        Raises:
            StoreUnavailable: a call hangs, or an outage lasts, for more than a minute.

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
        """Ask an idle store whether it is still there; an outage is noted. Never waits for a call.

        Without it, a store that went away while no event came would be found out by the next event.
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
        """Say where partitions stand; see StreamWriter."""
        return self._patiently(lambda: self._writer.positions(partitions))

    def begin(self, held: Mapping[int, int]) -> dict[int, int]:
        """Count an attempt. Raises Fenced."""
        # A small write may find room where a commit does not: it ends no outage of writing.
        return self._patiently(lambda: self._writer.begin(held), writes=True)

    def lead(self) -> bool:
        """Take or keep the lead."""
        return self._patiently(self._writer.lead)

    def move(self, partition: int, start: int, end: int) -> None:
        """Move a position without events, back or forth. Raises Fenced."""

        move = Move(partition, start, end)
        self._patiently(lambda: self._writer.move(move), writes=True)

    def send(
        self,
        moves: Sequence[Move],
        predictions: Predictions,
        dead: Sequence[DeadLetter],
        deleted: Sequence[Key],
        attempts: int,
    ) -> None:
        """Begin to write answers and move positions; see StreamWriter."""
        self._once(
            lambda: self._writer.send(moves, predictions, dead, deleted, attempts=attempts),
            writes=True,
        )

    def receive(self) -> None:
        """Wait for what was sent first. Raises Fenced, and StoreUnavailable at once."""
        self._once(self._writer.receive, writes=True, written=True)

    def release(self, held: Mapping[int, int]) -> None:
        """Take back attempts that ended no worker. Raises StoreUnavailable at once."""
        self._once(lambda: self._writer.release(held))

    def check_writes(self, error: StoreUnavailable) -> None:
        """Raise ``error`` where writing has failed for more than a minute."""
        self._write_outage.failed(error)

    def close(self) -> None:
        """Let go of the connection. A call that hangs keeps it."""
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
    return f"the prediction store has not answered for {seconds:.0f} s"
