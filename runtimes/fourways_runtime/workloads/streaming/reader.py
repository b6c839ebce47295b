"""The reader thread: reads events from the source, one micro-batch ahead of scoring.

Only this thread reads the source; the monitor only queries it. Everything that happens to the
source (partitions assigned, partitions revoked, events) reaches the worker in order, as items of
one queue. While the queue is full, the source is paused and the broker's session stays alive.

Owns where a partition starts: at the store's position, unless the log does not contain it. If the
broker's retention has deleted the next events, the rest is read and the loss is counted. If the
position is beyond the log's end, the log was restored to an older state and is read again from its
oldest event, like a topic without a position in the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from time import monotonic
from typing import Protocol

from fourways_api.modes import MicroBatch
from fourways_api.values import seconds
from fourways_runtime.errors import BrokerUnavailable
from fourways_runtime.io.brokers.source import (
    OUTAGE_SECONDS,
    Events,
    EventSource,
    LogBounds,
    PositionsOutOfRange,
)
from fourways_runtime.io.store.streams.stream import Position
from fourways_runtime.retry import retry_until_available

from .ledger import StreamLedger

_IDLE_SECONDS = 0.25
"""How long one poll waits for a first event before the loop checks for other work."""

_FULL_SECONDS = 1.0
"""The source is paused once the queue has been full for this long."""

_HAND_OVER_SECONDS = 10.0
"""How long the handover of a partition to another worker waits for what is in flight."""

_ASK_AGAIN = 4
_ASK_AGAIN_SECONDS = 0.5
"""How many times, and how far apart, a log's bounds are checked again before it counts as
restored."""

_PASS_SECONDS = 2.0
"""Interval between reports of the store's positions to the broker."""

_log = logging.getLogger("fourways.streaming")


@dataclass(frozen=True, slots=True)
class Assigned:
    """Partitions were assigned at these positions. ``anew``: they replace all earlier ones."""

    round: int
    positions: Mapping[int, Position]
    anew: bool


@dataclass(frozen=True, slots=True)
class Revoked:
    """Partitions were revoked."""

    partitions: Sequence[int]
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class BatchRead:
    """A micro-batch of events."""

    round: int
    events: Events


@dataclass(frozen=True, slots=True)
class ReadUpTo:
    """Partitions were read up to these positions; the events before them are earlier items."""

    round: int
    positions: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Ended:
    """The last item: the reader was stopped, or failed with ``error``."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """The source cannot be read at its current position: the worker must start over."""

    round: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Nothing happened to the source: the worker must check for failures elsewhere."""


Item = Assigned | Revoked | BatchRead | ReadUpTo | OutOfRange | Wake | Ended


class LogChanges(Protocol):
    """Records differences between a log and the store's positions."""

    def expired(self, partition: int, first: int, end: int) -> None:
        """Record that retention deleted the positions from ``first`` up to ``end``."""
        ...

    def restored(self, partition: int, position: int, end: int) -> None:
        """Record that a log ends at ``end``, below the store's ``position``."""
        ...


class SourceReader:
    """Reads a source on a separate thread, and is the source's partition listener."""

    def __init__(
        self,
        source: EventSource,
        ledger: StreamLedger,
        batch: MicroBatch,
        changes: LogChanges,
        stop: threading.Event,
    ) -> None:
        self.items: Queue[Item] = Queue(1)
        self._changes = changes
        self._source = source
        self._ledger = ledger
        self._most = batch.max_events
        self._gather = seconds(batch.max_delay)
        self._stop = stop
        self._finished = threading.Event()
        self._round = 0
        self._wanted = 0
        self._passed: dict[int, int] = {}
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def rewind(self) -> int:
        """Restart at the store's positions; return the new round. Drop items of earlier rounds."""
        self._wanted += 1
        return self._wanted

    def wake(self) -> None:
        """Make sure the worker gets an item. May be called from any thread."""
        with suppress(Full):  # If the queue is full, it already has one.
            self.items.put_nowait(Wake())

    def passed(self, positions: Mapping[int, int]) -> None:
        """Note the store's positions, to be reported to the broker."""
        self._passed = dict(positions)

    def finish(self, seconds: float) -> None:
        """Make the thread release its partitions and end."""
        self._finished.set()
        with suppress(Empty):
            while True:
                self.items.get_nowait()
        self._thread.join(seconds)

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Take partitions; return the positions to start from."""
        positions, starts = self._stands(partitions)
        self._put(Assigned(self._round, positions, anew=False))
        return starts

    def revoked(self, partitions: Sequence[int]) -> None:
        """Give up partitions: on return, none of their events is in flight unless fenced."""
        if self._finished.is_set():
            return
        revoked = Revoked(partitions)
        if self._put(revoked):
            deadline = monotonic() + _HAND_OVER_SECONDS
            while not revoked.done.wait(0.1):
                if self._finished.is_set() or monotonic() > deadline:
                    return

    def leads(self) -> bool:
        """Tell whether this worker leads the stream."""
        return self._ledger.lead()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._source.start(self)
            self._read()
        except Exception as found:  # noqa: BLE001  (the worker ends with it)
            if not self._stop.is_set():
                error = found
        self._put(Ended(error))
        self._finished.wait()
        with suppress(Exception):
            self._source.close()

    def _read(self) -> None:
        quiet = True
        looked = 0.0
        while not self._stop.is_set():
            if self._round != self._wanted:
                self._begin_anew()
            # A busy source fills a batch at once; only a quiet one needs a wait.
            wait = _IDLE_SECONDS if quiet else 0.0
            try:
                events = self._source.poll(self._most, wait, self._gather)
            except PositionsOutOfRange as error:
                _log.warning("reading the source failed: %s", error)
                self._put(OutOfRange(self._round))
                events = None
            quiet = events is None
            if events is not None:
                self._put(BatchRead(self._round, events))
            if positions := self._source.read_up_to():
                self._put(ReadUpTo(self._round, positions))
            now = monotonic()
            if now - looked > _PASS_SECONDS:
                looked = now
                self._source.passed(self._passed)

    def _begin_anew(self) -> None:
        self._round = self._wanted
        positions, starts = self._stands(self._source.held())
        self._source.seek(starts)
        held = set(self._source.held())
        positions = {p: found for p, found in positions.items() if p in held}
        self._put(Assigned(self._round, positions, anew=True))

    def _stands(self, partitions: Sequence[int]) -> tuple[dict[int, Position], dict[int, int]]:
        """Return the partitions' positions in the store, and the positions to read from."""
        positions = self._ledger.positions(dict.fromkeys(partitions, -1))
        starts = {}
        for partition, stored in positions.items():
            log = self._bounds(partition, stored)
            if stored.next < 0:
                positions[partition] = Position(log.oldest, 0)
            elif stored.next > log.end:
                self._changes.restored(partition, stored.next, log.end)
                self._ledger.move(partition, stored.next, log.oldest)
                positions[partition] = Position(log.oldest, 0)
            elif stored.next < log.oldest:
                # The store's position stays; the first commit moves it past the deleted events.
                self._changes.expired(partition, stored.next, log.oldest)
            starts[partition] = max(positions[partition].next, log.oldest)
        return positions, starts

    def _bounds(self, partition: int, stored: Position) -> LogBounds:
        """Return a log's bounds; ask the broker again if the log seems too short.

        A broker that has just started may need a moment to find its newest events.
        """
        log = self._asked_bounds(partition)
        for _ in range(_ASK_AGAIN):
            if stored.next <= log.end or self._stop.wait(_ASK_AGAIN_SECONDS):
                break
            log = self._asked_bounds(partition)
        return log

    def _asked_bounds(self, partition: int) -> LogBounds:
        def pause(seconds: float) -> None:
            if self._stop.wait(seconds):
                raise BrokerUnavailable("the worker stops")

        return retry_until_available(
            lambda: self._source.bounds(partition), OUTAGE_SECONDS, sleep=pause
        )

    def _put(self, item: Item) -> bool:
        """Queue an item as soon as there is room; return False if the reader has finished."""
        with suppress(Full):
            self.items.put(item, timeout=_FULL_SECONDS)
            return True
        while not self._finished.is_set():
            with suppress(Full):
                self.items.put_nowait(item)
                return True
            if isinstance(item, BatchRead | ReadUpTo):
                self._source.idle(0.1)
            else:
                self._finished.wait(0.05)
        return False
