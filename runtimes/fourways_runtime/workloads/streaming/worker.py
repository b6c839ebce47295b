"""The stream worker: reads, scores and writes concurrently, with exactly-once effects in the store.

Owns what is in flight and which event a failure is attributed to. At full speed, micro-batches are
read ahead, scored and written at the same time. Events are scored individually, and each attempt is
counted durably before it starts, if their batch made the model fail or if an earlier worker died
while it processed the next events. The event that kills workers is thus found and becomes a dead
letter, and the others are scored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import perf_counter

from fourways_api.backoff import Backoff
from fourways_api.reasons import Reason
from fourways_api.runtime_config import StreamConfig
from fourways_api.values import seconds
from fourways_api.worker_faults import WorkerFault, worker_fault
from fourways_runtime.errors import StoreUnavailable, WorkloadError
from fourways_runtime.io.brokers.source import Events, EventSource, SourceEnded
from fourways_runtime.io.store.streams.stream import DIED, MODEL, Fenced, Move
from fourways_runtime.model_watch import WATCH
from fourways_runtime.tracing import begin_events

from .committer import SENT, Committer, EventBatch
from .ledger import StreamLedger
from .monitor import PartitionProgress, StreamMonitor, lag_message
from .observed import StreamMetrics
from .partition_state import NOT_HELD, PartitionState
from .reader import (
    Assigned,
    BatchRead,
    Ended,
    OutOfRange,
    ReadUpTo,
    Revoked,
    SourceReader,
    Wake,
)
from .scoring import EventScorer, ScoredEvents, answers_by_question
from .source_changes import SourceChanges

IN_FLIGHT = SENT + 2
"""Maximum number of micro-batches begun but not written when a worker dies: one in the model, one
waiting for the writer, and those being written."""

_DIED_OVER = 2
"""Minimum number of attempts before an event counts as the one that kills workers: its first
attempt may have been in a batch with the event that does."""

_WAYS_TO_DIE = "it crashed, ran out of memory, or the model never returned"

_CLOSE_SECONDS = 10.0
_SHOW_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.25
_LAST_PAUSE_SECONDS = 2.0
"""First and maximum pause before the worker restarts after a failure; the pause doubles with each
consecutive failure."""

logger = logging.getLogger("fourways.streaming")


class StreamWorker:
    """Processes one source until stopped."""

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
        self._model = f"model {config.model.version} ({config.model.format})"
        self._scorer = scorer
        self._ledger = ledger
        self._source = source
        self._metrics = metrics
        self._stop = stop
        self._attempts = streaming.max_attempts
        self._max_lag = streaming.max_lag
        self._stretch = streaming.micro_batch.max_events * IN_FLIGHT
        self._changes = SourceChanges(metrics)
        self._reader = SourceReader(source, ledger, streaming.micro_batch, self._changes, stop)
        self._committer = Committer(ledger, self._written, self._reader.wake)
        self._monitor = StreamMonitor(source, ledger, metrics, self._progress)
        self._round = 0
        self._backoff = Backoff(_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS)
        """Number of restarts since the last successful write."""

        self._partitions: dict[int, PartitionState] = {}
        self._shown = 0.0
        self._empty = ScoredEvents(scorer.nothing(), {})

    def problem(self) -> str:
        """Return why events cannot be read or predictions written now, or an empty string."""
        return self._ledger.problem() or self._source.problem()

    def faults(self) -> tuple[WorkerFault, ...]:
        """Return what is wrong now, the most important first."""
        found = []
        if store := self._ledger.fault():
            found.append(worker_fault(store.reason, store))
        if source := self._source.problem():
            found.append(worker_fault(Reason.BrokerUnavailable, source))
        if lost := self._changes.recently_expired():
            found.append(worker_fault(Reason.EventsExpired, lost))
        if waited := self._monitor.late(seconds(self._max_lag)):
            found.append(worker_fault(Reason.StreamLags, lag_message(waited, self._max_lag)))
        return tuple(found)

    def warnings(self) -> list[str]:
        """Return what was lost or read again because the source changed, newest last."""
        return self._changes.warnings()

    def watch(self) -> None:
        """Check the store's availability from another thread.

        Raises:
            StoreUnavailable: The store has been unavailable for too long.

        """
        self._ledger.watch()

    def run(self) -> None:
        """Work until stopped, and finish what is in flight before returning.

        Raises:
            SourceEnded: The source must be opened anew. Everything read is written.
            WorkloadError: The source or the store has been unavailable for too long.

        """
        self._reader.start()
        self._monitor.start()
        try:
            self._work()
            self._take_back(self._partitions)
        finally:
            self._stop.set()
            self._monitor.finish(_CLOSE_SECONDS)
            self._committer.close()
            self._reader.finish(_CLOSE_SECONDS)
            self._ledger.close()

    def _work(self) -> None:
        while True:
            item = self._reader.items.get()
            if isinstance(item, Ended):
                self._end(item.error)
                return
            try:
                self._committer.check()
                match item:
                    case BatchRead():
                        if item.round == self._round:
                            self._batch(item.events)
                    case ReadUpTo():
                        if item.round == self._round:
                            self._move_up_to(item.positions)
                    case Assigned():
                        self._assigned(item)
                    case Revoked():
                        self._revoked(item)
                    case OutOfRange():
                        if item.round == self._round:
                            self._committer.settle()
                            self._begin_again()
                    case Wake():
                        pass
            except Fenced:
                self._reset("Fenced", "another worker has advanced a partition")
            except StoreUnavailable as error:
                self._ledger.check_writes(error)
                self._reset(error.reason, str(error))
            finally:
                if isinstance(item, Revoked):
                    self._forget(item.partitions)
                    item.done.set()

    def _end(self, error: Exception | None) -> None:
        """Finish writing what is in flight, unless the source itself failed; raise ``error``."""
        if error is not None and not isinstance(error, SourceEnded):
            raise error
        self._committer.settle()
        if error is not None:
            raise error

    # ------------------------------------------------------------ partitions

    def _assigned(self, item: Assigned) -> None:
        if item.round != self._round:
            return
        known = self._partitions
        if item.anew:
            self._partitions = {}
        for partition, found in item.positions.items():
            state = PartitionState(found.next, written=found.next)
            before = known.get(partition)
            if before is not None and found.next > before.written:
                self._ledger.confirm_writes()
            own = 0 if before is None else before.survived(found.next, before.counted_before)
            if own:
                state.begun, state.begun_at = own, found.next
            if 0 < found.attempts <= own:
                state.counted = True  # No worker died: the attempts are this worker's own.
            elif found.attempts:
                state.isolating = self._stretch
            self._partitions[partition] = state
        positions = {str(partition): found.next for partition, found in item.positions.items()}
        isolating = sum(state.isolating > 0 for state in self._partitions.values())
        logger.info("partitions begin", extra={"positions": positions, "isolating": isolating})

    def _revoked(self, item: Revoked) -> None:
        self._committer.settle()
        self._take_back(item.partitions)
        logger.info("partitions end", extra={"partitions": list(item.partitions)})

    def _take_back(self, partitions: Iterable[int]) -> None:
        """Release the counted attempts of partitions, since they killed no worker."""
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

    def _reset(self, reason: str, why: str) -> None:
        """Drop what is in flight and restart at the store's positions after a pause."""
        pause = self._backoff.pause()
        logger.warning("restarting in %.2g s: %s", pause, why, extra={"reason": reason})
        self._committer.reset()
        # A store that can be read but not written must not be queried in a tight loop.
        self._stop.wait(pause)
        self._begin_again()

    def _begin_again(self) -> None:
        """Restart at the store's positions; requires that nothing is in flight."""
        self._metrics.reset()
        self._partitions = {
            partition: PartitionState(
                NOT_HELD,
                counted_before=state.counted or state.counted_before,
                begun=state.begun,
                begun_at=state.begun_at,
                written=state.written,
            )
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
        self._begin(states)
        spans = begin_events(len(events), events.headers)
        started = perf_counter()
        try:
            outcome = self._score(events)
        except Exception as error:  # noqa: BLE001  (whose fault it is shows one by one)
            logger.warning("scoring the events of a batch individually: %s", error)
            self._one_by_one(events)
            return
        self._metrics.scored(perf_counter() - started)
        dead = [events.dead(at, why, 1) for at, why in sorted(outcome.refusals.items())]
        moves = [Move(p, states[p].next, last + 1) for p, last in ends.items()]
        self._note(events, ends)
        answered = answers_by_question(events.asked(), outcome.predictions)
        batch = EventBatch(moves, outcome.predictions, dead, outcome.deleted, answered)
        self._committer.put(replace(batch, stored=spans.ending(outcome.refusals)))
        for move in moves:
            states[move.partition].next = move.end

    def _begin(self, states: Mapping[int, PartitionState]) -> None:
        """Count an attempt for the partitions that have none yet."""
        begin = {p: state.next for p, state in states.items() if not state.counted}
        if begin:
            self._committer.settle()
            self._ledger.begin(begin)
            for partition in begin:
                states[partition].begin()

    def _move_up_to(self, positions: Mapping[int, int]) -> None:
        """Move partitions past positions without events.

        Otherwise they would count as events that wait, and as lost once retention deletes them.
        """
        for partition, position in positions.items():
            state = self._partitions.get(partition)
            if state is None or state.isolating or state.next >= position:
                continue
            self._begin({partition: state})
            moves = [Move(partition, state.next, position)]
            self._committer.put(EventBatch(moves, self._empty.predictions, []))
            state.next = position

    def _new(self, events: Events) -> Events:
        """Drop events already processed or of partitions that this worker no longer holds."""
        firsts = dict(zip(events.partitions[::-1], events.positions[::-1], strict=True))
        starts = {partition: self._start(partition) for partition in firsts}
        if all(at >= starts[partition] for partition, at in firsts.items()):
            return events
        found = zip(events.partitions, events.positions, strict=True)
        return events.chosen([index for index, (p, at) in enumerate(found) if at >= starts[p]])

    def _start(self, partition: int) -> int:
        state = self._partitions.get(partition)
        return NOT_HELD if state is None else state.next

    def _note(self, events: Events, partitions: Iterable[int]) -> None:
        """Note that these events are in flight, and when they were published."""
        for partition in partitions:
            first = events.partitions.index(partition)
            self._partitions[partition].note(events.positions[first], events.time(first))

    def _score(self, events: Events) -> ScoredEvents:
        # A model that does not return ends the process; the next worker then retries, one by one,
        # the events whose attempt was counted.
        first = f"partition {events.partitions[0]} from position {events.positions[0]}"
        with WATCH.doing("scoring", f"{first} by {self._model}"):
            return self._scorer.score(events)

    def _one_by_one(self, events: Events) -> None:
        self._committer.settle()
        for at, partition in enumerate(events.partitions):
            if self._stop.is_set():
                return
            self._one(events.chosen([at]))
            state = self._partitions[partition]
            state.isolating = max(0, state.isolating - 1)

    def _one(self, event: Events) -> None:
        """Score one event alone, up to the maximum number of attempts, and write the result."""
        partition, position = event.partitions[0], event.positions[0]
        state = self._partitions[partition]
        start = state.next
        self._note(event, (partition,))
        spans = begin_events(1, event.headers)
        outcome, reason, attempts = self._empty, "", 0
        survived = 0  # Attempts whose writes failed, before this call.
        first = True
        while True:
            attempts = self._ledger.begin({partition: start})[partition]
            before = state.begin()
            survived = before if first else survived
            attempts -= survived
            if first and attempts > max(self._attempts, _DIED_OVER):
                reason = f"{DIED} {attempts - 1} times: {_WAYS_TO_DIE}"
                attempts -= 1
                break
            first = False
            try:
                outcome = self._score(event)
            except WorkloadError as error:
                # Any other error is a bug: it ends the worker, and the attempt stays counted.
                reason = f"{MODEL}{error}"
                if attempts >= self._attempts:
                    break
                continue
            reason = outcome.refusals.get(0, "")
            break
        dead = [event.dead(0, reason, attempts)] if reason else []
        batch = EventBatch(
            [Move(partition, start, position + 1)],
            outcome.predictions,
            dead,
            outcome.deleted,
            answers_by_question(event.asked(), outcome.predictions),
            attempts=0,  # Leave no counted attempt: the next event is not in flight.
            stored=spans.ending([0] if reason else []),
        )
        self._committer.put(batch)
        self._committer.settle()
        state.next = position + 1
        state.counted = False

    def _written(self, batch: EventBatch, took: float) -> None:
        self._metrics.written(took)
        self._metrics.done(len(batch), len(batch.dead))
        batch.stored()
        self._backoff.reset()
        for move in batch.moves:
            state = self._partitions.get(move.partition)
            if state is not None:
                state.wrote(move.end)
        now = perf_counter()
        if now - self._shown > _SHOW_SECONDS:
            self._shown = now
            self._reader.passed({p: found.written for p, found in self._progress().items()})

    def _progress(self) -> dict[int, PartitionProgress]:
        """Return each partition's progress. May be called from any thread."""
        return {partition: state.progress() for partition, state in list(self._partitions.items())}
