"""Coalesces the keys of many requests into few queries, once per turn of the event loop.

Owns the queue in front of a feature database and the time budget. Keys requested in the same turn,
or while the database runs its maximum number of queries, go into one query, each distinct key once.
So an idle server adds no delay, and a busy one sends larger queries instead of more of them. The
budget runs from the first request of a batch and includes the time that its query waits in the
queue; there is one timer per batch, not one per request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from fourways_runtime.errors import FeaturesUnavailable, WorkloadError
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import Row

from .base import FeatureDatabase
from .observed import FeatureMetrics

logger = logging.getLogger("fourways.features")

MAX_BATCH_KEYS = 1000
"""Maximum number of keys in a shared query; a request with more keys gets its own query."""

MAX_WAITING = 8192
"""Maximum number of requests that wait for features; further requests are rejected."""

Found = Mapping[Key, Row]


@dataclass(slots=True, eq=False)
class _FeatureBatch:
    asked_at: float
    keys: dict[Key, None] = field(default_factory=dict)
    waiters: list[asyncio.Future[Found]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class CoalescedFeatures:
    """A feature database as request handlers see it; see :class:`.base.FeatureReader`."""

    def __init__(self, source: FeatureDatabase, timeout: float, metrics: FeatureMetrics) -> None:
        """``timeout`` is the time budget of a request in seconds."""
        self._source = source
        self._timeout = timeout
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._open: _FeatureBatch | None = None
        self._queue: deque[_FeatureBatch] = deque()
        self._waiting = 0
        self._pump_due = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._failing = False
        self.answered = 0
        """Number of lookups that the database has answered."""

    async def fetch(self, keys: Sequence[Key]) -> Found:
        """Return the rows of ``keys``, and possibly of others. Raises FeaturesUnavailable."""
        if self._waiting >= MAX_WAITING:
            raise FeaturesUnavailable("too many requests wait for the feature database")
        batch = self._open
        if batch is None or len(batch.keys) + len(keys) > MAX_BATCH_KEYS:
            batch = self._open = _FeatureBatch(perf_counter())
            batch.timer = self._loop.call_later(self._timeout, self._expire, batch)
            self._queue.append(batch)
        batch.keys.update(dict.fromkeys(keys))
        future: asyncio.Future[Found] = self._loop.create_future()
        batch.waiters.append(future)
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)
        self._waiting += 1
        try:
            return await future
        finally:
            self._waiting -= 1

    def age(self, key: Key) -> float:
        """Return how many seconds ago a row that was just returned was looked up: none."""
        return 0.0

    async def check(self) -> None:
        """Connect and check the columns."""
        await self._source.check()

    async def ping(self) -> None:
        """Look up nothing. Raises FeaturesUnavailable, or another WorkloadError."""
        await self._source.query([])

    async def close(self) -> None:
        """Cancel queries in progress and disconnect."""
        for batch in [*self._queue]:
            self._fail(batch, FeaturesUnavailable("the server is stopping"))
        self._queue.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._source.close()

    def _pump(self) -> None:
        self._pump_due = False
        while self._queue and len(self._tasks) < self._source.concurrency:
            batch = self._queue.popleft()
            if self._open is batch:
                self._open = None
            task = batch.task = self._loop.create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._pump()

    async def _run(self, batch: _FeatureBatch) -> None:
        keys = list(batch.keys)
        self._metrics.sent(len(keys))
        try:
            found = await self._source.query(keys)
        except asyncio.CancelledError:
            self._fail(batch, FeaturesUnavailable("the server is stopping"))
            raise
        except WorkloadError as error:
            self._metrics.unavailable()
            self._note(str(error))
            self._fail(batch, FeaturesUnavailable(str(error)))
        except Exception as error:  # noqa: BLE001  (every request logs it under its own id)
            self._fail(batch, error)
        else:
            self._note(None)
            self.answered += 1
            misses = sum(key not in found for key in batch.keys)
            self._metrics.answered(misses, perf_counter() - batch.asked_at)
            self._end(batch)
            for future in batch.waiters:
                if not future.done():
                    future.set_result(found)

    def _expire(self, batch: _FeatureBatch) -> None:
        """Fail a batch whose query has timed out, and cancel the query."""
        if self._open is batch:
            self._open = None
        if batch in self._queue:
            self._queue.remove(batch)
        self._metrics.timed_out()
        text = f"the feature database: no response in {self._timeout * 1000:g} ms"
        self._note(text)
        self._fail(batch, FeaturesUnavailable(text))
        if batch.task is not None:
            batch.task.cancel()

    def _fail(self, batch: _FeatureBatch, error: Exception) -> None:
        self._end(batch)
        for future in batch.waiters:
            if not future.done():
                future.set_exception(error)

    @staticmethod
    def _end(batch: _FeatureBatch) -> None:
        if batch.timer is not None:
            batch.timer.cancel()

    def _note(self, fault: str | None) -> None:
        """Log the first failure and the recovery, but not each failure in between."""
        if fault is not None and not self._failing:
            logger.warning("features: %s", fault)
        elif fault is None and self._failing:
            logger.info("the feature database is available again")
        self._failing = fault is not None
