"""The stream worker: read, score and write side by side, each event done exactly once in the store.

Owns what is in flight and whose fault a failure is. At full speed micro-batches are read ahead,
scored and written at the same time. An event is scored individually, each
attempt counted durably before it is made, where its batch made the model fail, or where an earlier
worker died over the events that come next: so the event that kills workers is found and becomes a
dead letter, and the others are scored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic, perf_counter

from fourways_api.runtime_config import StreamConfig
from fourways_runtime.errors import ModelHangs, StoreUnavailable, WorkloadError
from fourways_runtime.io.brokers.source import Events, EventSource
from fourways_runtime.io.store.streams.stream import DIED, MODEL, Fenced, Move

from .committer import SENT, Committer, EventBatch
from .ledger import StreamLedger
from .observed import StreamMetrics
from .reader import Assigned, BatchRead, Ended, Revoked, SourceReader
from .scoring import EventScorer, ScoredEvents

IN_FLIGHT = SENT + 2
"""Micro-batches that may have been scored and not written when a worker dies: one in the model, one
waiting for the writer, and those being written."""

_DIED_OVER = 2
"""An event counts as the one that kills workers after at least so many attempts: its first may have
been in a batch with the one that does."""

_WAYS_TO_DIE = "it crashed, ran out of memory, or the model never came back"
_ALIKE = 64
"""A model may take as long again for so many events more."""

NOT_HELD = 1 << 63
"""The next position of a partition that this worker does not hold: no event is at or after it."""

_CLOSE_SECONDS = 10.0
_SHOW_SECONDS = 1.0

logger = logging.getLogger("fourways.streaming")


@dataclass(slots=True)
class PartitionState:
    """What the worker knows of one partition."""

    next: int
    """The next event to score, once all that is in flight is written; NOT_HELD after a reset."""

    counted: bool = False
    """The store has an attempt of this worker at that position."""

    counted_before: bool = False
    """It may have one from before the worker began anew."""

    isolating: int = 0
    """How many events are still to be scored individually."""

    written: int | None = None
    """The position in the store; None until something was written."""

    @property
    def held(self) -> bool:
        """Tell whether this worker holds the partition."""
        return self.next != NOT_HELD


class StreamWorker:
    """Works on one source until told to stop."""

    def __init__(
        self,
        config: StreamConfig,
        scorer: EventScorer,
        source: EventSource,
        ledger: StreamLedger,
        metrics: StreamMetrics,
        stop: threading.Event,
    ) -> None:
        streaming = config.streaming
        self._model = f"{config.model.version} ({config.model.format})"
        self._model_seconds = config.model_seconds
        self._asked: tuple[float, Events] | None = None
        """Since when the model has been at which events."""

        self._scorer = scorer
        self._ledger = ledger
        self._source = source
        self._metrics = metrics
        self._stop = stop
        self._attempts = streaming.max_attempts
        self._stretch = streaming.micro_batch.max_events * IN_FLIGHT
        self._reader = SourceReader(source, ledger, streaming.micro_batch, stop)
        self._committer = Committer(ledger, self._written)
        self._round = 0
        self._partitions: dict[int, PartitionState] = {}
        self._shown = 0.0
        self._empty = scorer.nothing()

    @property
    def ready(self) -> bool:
        """Tell whether events can be read and answers written."""
        return self._ledger.available and self._source.available()

    def watch(self) -> None:
        """Look whether the model comes back, from another thread.

        Raises:
            ModelHangs: it has been at the same events for too long. The process is to
                end: events whose attempt was counted are retried individually.

        """
        asked = self._asked
        if asked is None:
            return
        since, events = asked
        limit = self._model_seconds * (1 + len(events) / _ALIKE)
        if monotonic() - since > limit:
            first = f"partition {events.partitions[0]} from position {events.positions[0]}"
            raise ModelHangs(
                f"the model {self._model} has not come back from {len(events)} events of {first} "
                f"for {limit:.0f} s; events are tried one by one now, and one it never comes back "
                "from becomes a dead letter"
            )

    def run(self) -> None:
        """Work until told to stop; what is in flight is finished first.

        Raises:
            WorkloadError: the source or the store is away for good.

        """
        self._reader.start()
        try:
            self._work()
            self._take_back(self._partitions)
        finally:
            self._stop.set()
            self._committer.close()
            self._reader.finish(_CLOSE_SECONDS)
            self._ledger.close()

    def _work(self) -> None:
        while True:
            item = self._reader.items.get()
            try:
                match item:
                    case BatchRead():
                        if item.round == self._round:
                            self._batch(item.events)
                    case Assigned():
                        self._assigned(item)
                    case Revoked():
                        self._revoked(item)
                    case Ended():
                        if item.error is not None:
                            raise item.error
                        self._committer.settle()
                        return
            except (Fenced, StoreUnavailable) as error:
                if isinstance(item, Ended):
                    raise
                self._reset(error)

    # ------------------------------------------------------------ partitions

    def _assigned(self, item: Assigned) -> None:
        if item.round != self._round:
            return
        known = self._partitions
        if item.anew:
            self._partitions = {}
        for partition, found in item.positions.items():
            state = PartitionState(found.next)
            before = known.get(partition)
            if found.attempts == 1 and before is not None and before.counted_before:
                state.counted = True  # No worker died: the attempt is this worker's own.
            elif found.attempts:
                state.isolating = self._stretch
            self._partitions[partition] = state
        positions = {str(partition): found.next for partition, found in item.positions.items()}
        isolating = sum(state.isolating > 0 for state in self._partitions.values())
        logger.info("partitions begin", extra={"positions": positions, "isolating": isolating})

    def _revoked(self, item: Revoked) -> None:
        try:
            self._committer.settle()
            self._take_back(item.partitions)
        finally:
            self._forget(item.partitions)
            item.done.set()
        logger.info("partitions end", extra={"partitions": list(item.partitions)})

    def _take_back(self, partitions: Iterable[int]) -> None:
        """Take back the attempts that were counted for partitions and ended no worker."""
        states = {p: self._partitions[p] for p in partitions if p in self._partitions}
        held = {p: state.next for p, state in states.items() if state.counted and state.held}
        if held:
            try:
                self._ledger.release(held)
            except StoreUnavailable as error:
                logger.warning("the next worker scores some events individually: %s", error)

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._partitions.pop(partition, None)

    def _reset(self, error: Exception) -> None:
        """Drop what is in flight and begin anew at the store's positions."""
        logger.warning("beginning anew: %s", str(error) or "another worker moved a partition on")
        self._metrics.reset()
        self._committer.reset()
        self._partitions = {
            partition: PartitionState(NOT_HELD, counted_before=state.counted)
            for partition, state in self._partitions.items()
        }
        self._round = self._reader.rewind()

    # ------------------------------------------------------------ events

    def _batch(self, events: Events) -> None:
        events = self._new(events)
        ends = dict(zip(events.partitions, events.positions, strict=True))
        if not ends:
            return
        states = {partition: self._partitions[partition] for partition in ends}
        if any(state.isolating for state in states.values()):
            self._one_by_one(events)
            return
        begin = {p: state.next for p, state in states.items() if not state.counted}
        if begin:
            self._committer.settle()
            self._ledger.begin(begin)
            for partition in begin:
                states[partition].counted = True
        started = perf_counter()
        try:
            outcome = self._score(events)
        except Exception as error:  # noqa: BLE001  (whose fault it is shows one by one)
            logger.warning("scoring a batch one by one: %s", error)
            self._one_by_one(events)
            return
        self._metrics.scored(perf_counter() - started)
        dead = [events.dead(at, why, 1) for at, why in sorted(outcome.refusals.items())]
        moves = [Move(p, states[p].next, last + 1) for p, last in ends.items()]
        self._committer.put(EventBatch(moves, outcome.predictions, dead))
        for move in moves:
            states[move.partition].next = move.end

    def _new(self, events: Events) -> Events:
        """Leave out events that are done already, or of partitions that are not ours any more."""
        firsts = dict(zip(events.partitions[::-1], events.positions[::-1], strict=True))
        starts = {partition: self._start(partition) for partition in firsts}
        if all(at >= starts[partition] for partition, at in firsts.items()):
            return events
        found = zip(events.partitions, events.positions, strict=True)
        return events.chosen([index for index, (p, at) in enumerate(found) if at >= starts[p]])

    def _start(self, partition: int) -> int:
        state = self._partitions.get(partition)
        return NOT_HELD if state is None else state.next

    def _score(self, events: Events) -> ScoredEvents:
        self._asked = (monotonic(), events)
        try:
            return self._scorer.score(events)
        finally:
            self._asked = None

    def _one_by_one(self, events: Events) -> None:
        self._committer.settle()
        for at, partition in enumerate(events.partitions):
            if self._stop.is_set():
                return
            self._one(events.chosen([at]))
            state = self._partitions[partition]
            state.isolating = max(0, state.isolating - 1)

    def _one(self, event: Events) -> None:
        """Score one event alone, as often as it may be tried, and write what it came to."""
        partition, position = event.partitions[0], event.positions[0]
        state = self._partitions[partition]
        start = state.next
        predictions, reason, attempts = self._empty, "", 0
        first = True
        while True:
            attempts = self._ledger.begin({partition: start})[partition]
            state.counted = True
            if first and attempts > max(self._attempts, _DIED_OVER):
                reason = f"{DIED} {attempts - 1} times: {_WAYS_TO_DIE}"
                attempts -= 1
                break
            first = False
            try:
                outcome = self._score(event)
            except WorkloadError as error:
                # Any other error is ours: it ends the worker, and the attempt stays counted.
                reason = f"{MODEL}{error}"
                if attempts >= self._attempts:
                    break
                continue
            predictions, reason = outcome.predictions, outcome.refusals.get(0, "")
            break
        dead = [event.dead(0, reason, attempts)] if reason else []
        # No attempt is left behind: the next event is not in flight.
        self._committer.put(
            EventBatch([Move(partition, start, position + 1)], predictions, dead, 0)
        )
        self._committer.settle()
        state.next = position + 1
        state.counted = False

    def _written(self, batch: EventBatch, took: float) -> None:
        self._metrics.written(took)
        self._metrics.done(len(batch.predictions) + len(batch.dead), len(batch.dead))
        for move in batch.moves:
            state = self._partitions.get(move.partition)
            if state is not None:
                state.written = move.end
        now = perf_counter()
        if now - self._shown > _SHOW_SECONDS:
            self._shown = now
            written = self._written_positions()
            self._reader.passed(written)
            self._metrics.lag(self._reader.newest, written)

    def _written_positions(self) -> dict[int, int]:
        """Return what the store has, by partition. Called from any thread."""
        found = list(self._partitions.items())
        return {partition: state.written for partition, state in found if state.written is not None}
