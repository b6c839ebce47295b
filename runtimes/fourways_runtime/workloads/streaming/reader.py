"""The reader thread: events from the source, one micro-batch ahead of the one being scored.

It reads the source; the monitor only asks it questions. What happens there (partitions assigned,
partitions revoked, events) reaches the worker in order, as items of one queue. While the queue is
full the source is paused, and the broker's session stays alive.

Owns where a partition starts. The store's position counts, unless the log does not reach to it: if
the broker's retention has deleted what comes next, the rest is read and the loss is counted; if the
position lies above the log's end, the log was restored to an older state, and it is read again from
its oldest event, as a topic without a position in the store is.
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
"""How long to wait for a first event before looking up."""

_FULL_SECONDS = 1.0
"""A queue that stays full this long pauses the source."""

_HAND_OVER_SECONDS = 10.0
"""How long a partition that moves to another worker waits for what is in flight."""

_ASK_AGAIN = 4
_ASK_AGAIN_SECONDS = 0.5
"""How often, and how long apart, a log is looked at before it counts as restored."""

_PASS_SECONDS = 2.0
"""Between two reports to the broker of how far the store is."""

_log = logging.getLogger("fourways.streaming")


@dataclass(frozen=True, slots=True)
class Assigned:
    """Partitions begin, at these positions. ``anew``: these and no others."""

    round: int
    positions: Mapping[int, Position]
    anew: bool


@dataclass(frozen=True, slots=True)
class Revoked:
    """Partitions end."""

    partitions: Sequence[int]
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class BatchRead:
    """A micro-batch of events."""

    round: int
    events: Events


@dataclass(frozen=True, slots=True)
class Ended:
    """The last item: told to stop, or why it could not go on."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """The source cannot be read where it is read: the worker is to begin again."""

    round: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Nothing happened here: the worker is to look at what happened elsewhere."""


Item = Assigned | Revoked | BatchRead | OutOfRange | Wake | Ended


class LogChanges(Protocol):
    """Who records that a log is not what the store's positions say."""

    def expired(self, partition: int, first: int, end: int) -> None:
        """Record that retention deleted the positions from ``first`` up to ``end``."""
        ...

    def restored(self, partition: int, position: int, end: int) -> None:
        """Record that a log ends at ``end``, below the store's ``position``."""
        ...


class SourceReader:
    """Reads a source on a thread of its own. It is the source's listener too."""

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
        """Begin."""
        self._thread.start()

    def rewind(self) -> int:
        """Begin anew at the store's positions; items of earlier rounds are to be dropped."""
        self._wanted += 1
        return self._wanted

    def wake(self) -> None:
        """Let the worker take an item, whatever it is. Called from any thread."""
        with suppress(Full):  # Then there is one.
            self.items.put_nowait(Wake())

    def passed(self, positions: Mapping[int, int]) -> None:
        """Take note of what the store has, for the broker."""
        self._passed = dict(positions)

    def finish(self, seconds: float) -> None:
        """Let the thread give its partitions back and end."""
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
        """Give partitions up: on return nothing of them is in flight, or it is fenced."""
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
            # A busy source fills a batch at once; a quiet one is waited for.
            wait = _IDLE_SECONDS if quiet else 0.0
            try:
                events = self._source.poll(self._most, wait, self._gather)
            except PositionsOutOfRange as error:
                _log.warning("the source cannot be read on: %s", error)
                self._put(OutOfRange(self._round))
                events = None
            quiet = events is None
            if events is not None:
                self._put(BatchRead(self._round, events))
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
        """Return where partitions stand by the store, and where they are to be read from."""
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
                # The first commit moves the position on from where it is.
                self._changes.expired(partition, stored.next, log.oldest)
            starts[partition] = max(positions[partition].next, log.oldest)
        return positions, starts

    def _bounds(self, partition: int, stored: Position) -> LogBounds:
        """Ask for a log's bounds, and again where it seems too short.

        A broker that was just started may know of its newest events only a moment later.
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
        """Hand an item over, as soon as there is room; False where nobody takes it any more."""
        with suppress(Full):
            self.items.put(item, timeout=_FULL_SECONDS)
            return True
        while not self._finished.is_set():
            with suppress(Full):
                self.items.put_nowait(item)
                return True
            if isinstance(item, BatchRead):
                self._source.idle(0.1)
            else:
                self._finished.wait(0.05)
        return False
