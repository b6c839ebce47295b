"""The stream worker: read, score and write side by side, each event done exactly once in the store.

Owns what is in flight and whose fault a failure is. At full speed micro-batches are read ahead,
scored and written at the same time. An event is tried alone, each try counted durably
before it is made, where its batch made the model fail, or where a worker before this one died over
events that come next: so the one that kills is found, and becomes a dead letter, and the others are
served.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from time import monotonic, perf_counter

from fourways_api.runtime_config import StreamConfig
from fourways_runtime.errors import ModelHangs, StoreUnavailable, WorkloadError
from fourways_runtime.io.brokers.source import Events, Source
from fourways_runtime.io.store.streams.stream import DIED, MODEL, Fenced, Move

from .committer import SENT, Batch, Committer
from .ledger import StreamLedger
from .observed import StreamMetrics
from .reader import Assigned, Ended, Given, Reader, Revoked
from .scoring import Outcome, Scorer

IN_FLIGHT = SENT + 2
"""Micro-batches that may have been scored and not written when a worker dies: one in the model, one
waiting for the writer, and those being written."""

_DIED_OVER = 2
"""An event is taken for the one that kills after so many tries at the least: its first may have
been in a batch with the one that does."""

_WAYS_TO_DIE = "it crashed, ran out of memory, or the model never came back"
_ALIKE = 64
"""A model may take as long again for so many events more."""

_CLOSE_SECONDS = 10.0
_SHOW_SECONDS = 1.0

logger = logging.getLogger("fourways.streaming")


class Worker:
    """Works on one source until told to stop."""

    def __init__(
        self,
        config: StreamConfig,
        scorer: Scorer,
        source: Source,
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
        self._reader = Reader(source, ledger, streaming.micro_batch, stop)
        self._committer = Committer(ledger, self._written)
        self._round = 0
        self._held: dict[int, int] = {}
        """Where each partition goes on, once all that is in flight is written."""

        self._begun: set[int] = set()
        """Partitions whose position has a try of ours."""

        self._careful: dict[int, int] = {}
        """How many events of a partition are still to be scored alone."""

        self._ours: set[int] = set()
        """Partitions whose position may have a try of ours still, from before we began anew."""

        self._stands: dict[int, int] = {}
        self._shown = 0.0
        self._empty = scorer.nothing()

    @property
    def ready(self) -> bool:
        """Tell whether events can be read and answers written."""
        return self._ledger.available and self._source.available()

    def watch(self) -> None:
        """Look whether the model comes back, from another thread.

        Raises:
            ModelHangs: it has been at the same events for too long. The process is to end: whose
                try was counted is tried alone by the next worker.

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
            self._take_back(list(self._held))
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
                    case Given():
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
        if item.anew:
            self._forget(list(self._held))
        for partition, found in item.positions.items():
            self._held[partition] = found.next
            if found.tries == 1 and partition in self._ours:
                self._begun.add(partition)  # Nobody died: we are here.
            elif found.tries:
                self._careful[partition] = self._stretch
        self._ours.clear()
        stands = {str(partition): found.next for partition, found in item.positions.items()}
        logger.info("partitions begin", extra={"positions": stands, "careful": len(self._careful)})

    def _revoked(self, item: Revoked) -> None:
        try:
            self._committer.settle()
            self._take_back(item.partitions)
        finally:
            self._forget(item.partitions)
            item.done.set()
        logger.info("partitions end", extra={"partitions": list(item.partitions)})

    def _take_back(self, partitions: Sequence[int]) -> None:
        """Take back the tries of partitions that nobody died over."""
        held = {p: self._held[p] for p in partitions if p in self._begun and p in self._held}
        if held:
            try:
                self._ledger.release(held)
            except StoreUnavailable as error:
                logger.warning("the next worker will be more careful than it need be: %s", error)

    def _forget(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._held.pop(partition, None)
            self._careful.pop(partition, None)
            self._begun.discard(partition)
            self._stands.pop(partition, None)

    def _reset(self, error: Exception) -> None:
        """Drop what is in flight and begin anew at the store's positions."""
        logger.warning("beginning anew: %s", str(error) or "another worker moved a partition on")
        self._metrics.reset()
        self._committer.reset()
        self._ours |= self._begun
        self._forget(list(self._held))
        self._round = self._reader.rewind()

    # ------------------------------------------------------------ events

    def _batch(self, events: Events) -> None:
        events = self._new(events)
        ends = dict(zip(events.partitions, events.positions, strict=True))
        if not ends:
            return
        if self._careful and any(partition in self._careful for partition in ends):
            self._one_by_one(events)
            return
        begin = {p: self._held[p] for p in ends if p not in self._begun}
        if begin:
            self._committer.settle()
            self._ledger.begin(begin)
            self._begun |= begin.keys()
        started = perf_counter()
        try:
            outcome = self._score(events)
        except Exception as error:  # noqa: BLE001  (whose fault it is shows one by one)
            logger.warning("scoring a batch one by one: %s", error)
            self._one_by_one(events)
            return
        self._metrics.scored(perf_counter() - started)
        dead = [events.dead(at, why, 1) for at, why in sorted(outcome.refusals.items())]
        moves = [Move(p, self._held[p], last + 1) for p, last in ends.items()]
        self._committer.put(Batch(moves, outcome.predictions, dead))
        for move in moves:
            self._held[move.partition] = move.end

    def _new(self, events: Events) -> Events:
        """Leave out events that are done already, or of partitions that are not ours any more."""
        firsts = dict(zip(events.partitions[::-1], events.positions[::-1], strict=True))
        if all(at >= self._held.get(partition, 1 << 63) for partition, at in firsts.items()):
            return events
        places = zip(events.partitions, events.positions, strict=True)
        held = self._held
        return events.chosen([i for i, (p, at) in enumerate(places) if at >= held.get(p, 1 << 63)])

    def _score(self, events: Events) -> Outcome:
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
            left = self._careful.get(partition, 0) - 1
            if left > 0:
                self._careful[partition] = left
            else:
                self._careful.pop(partition, None)

    def _one(self, event: Events) -> None:
        """Score one event alone, as often as it may be tried, and write what it came to."""
        partition, position = event.partitions[0], event.positions[0]
        start = self._held[partition]
        predictions, reason, tries = self._empty, "", 0
        first = True
        while True:
            tries = self._ledger.begin({partition: start})[partition]
            self._begun.add(partition)
            if first and tries > max(self._attempts, _DIED_OVER):
                reason = f"{DIED} {tries - 1} times: {_WAYS_TO_DIE}"
                tries -= 1
                break
            first = False
            try:
                outcome = self._score(event)
            except WorkloadError as error:
                # Any other error is ours: it ends the worker, and the try stays counted.
                reason = f"{MODEL}{error}"
                if tries >= self._attempts:
                    break
                continue
            predictions, reason = outcome.predictions, outcome.refusals.get(0, "")
            break
        dead = [event.dead(0, reason, tries)] if reason else []
        # No try is left behind: the next event is not in flight.
        self._committer.put(Batch([Move(partition, start, position + 1)], predictions, dead, 0))
        self._committer.settle()
        self._held[partition] = position + 1
        self._begun.discard(partition)

    def _written(self, batch: Batch, took: float) -> None:
        self._metrics.written(took)
        self._metrics.done(len(batch.predictions) + len(batch.dead), len(batch.dead))
        for move in batch.moves:
            self._stands[move.partition] = move.end
        now = perf_counter()
        if now - self._shown > _SHOW_SECONDS:
            self._shown = now
            self._reader.passed(self._stands)
            self._metrics.lag(self._reader.newest, self._stands)
