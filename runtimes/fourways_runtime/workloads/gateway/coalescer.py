"""Combines many small lookups into few large ones, once per turn of the event loop.

Owns the queue in front of the store. Requests for one deployment that arrive in the same turn, or
while all lookup slots are taken, share one lookup; equal keys are looked up once. An idle gateway
therefore adds no delay, and a busy one sends larger batches to the store instead of more of them.
The queue is bounded: when it is full, further requests are rejected at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, TypeVar

from fourways_http import HttpError
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.store.streams.stream import AnswerKey, EventPosition
from fourways_runtime.tracing import begin_stage

L = TypeVar("L")
R = TypeVar("R")

Look = Callable[[str, str, list[Any], list[EventPosition], float], Awaitable[L]]
"""Looks up keys (of a stream also questions) of a deployment in a namespace, and the outcomes of
the events at these positions. The last argument is the maximum time in seconds."""

RETRY = (b"retry-after: 1",)

MAX_LOOKUPS = 4
"""Maximum concurrent lookups, over all deployments."""

MAX_BATCH_KEYS = 1000
"""Maximum keys in a shared lookup; a request with more gets a lookup of its own."""

MAX_WAITING = 8192
"""Maximum requests waiting for their lookup to begin, over all deployments; beyond it: 503."""


@dataclass(slots=True, eq=False)
class _LookupBatch(Generic[L]):
    deployment: str
    asked_at: float
    keys: dict[AnswerKey, None] = field(default_factory=dict)
    places: dict[EventPosition, None] = field(default_factory=dict)
    waiters: list[tuple[asyncio.Future[Any], Callable[[L], Any]]] = field(default_factory=list)


class LookupCoalescer(Generic[L]):
    """Queries the store on behalf of requests."""

    def __init__(self, look: Look[L], timeout_seconds: float, namespace: str) -> None:
        self._look = look
        self._timeout = timeout_seconds
        self._namespace = namespace
        self._loop = asyncio.get_running_loop()
        self._open: dict[str, _LookupBatch[L]] = {}
        self._queue: deque[_LookupBatch[L]] = deque()
        self._waiting = 0
        self._pump_due = False
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(
        self,
        deployment: str,
        keys: Sequence[AnswerKey],
        then: Callable[[L], R],
        places: Sequence[EventPosition] = (),
    ) -> asyncio.Future[R]:
        """Look ``keys`` up and return the result of ``then``, which may raise HttpError.

        Without keys, only what is published is looked up, without predictions. The future fails
        with HttpError 503 if the store does not answer in time. Raises HttpError 503 at once if
        too many requests are already waiting.
        """
        if self._waiting >= MAX_WAITING:
            raise HttpError(503, "too many requests are waiting", RETRY)
        batch = self._open.get(deployment)
        if batch is None or len(batch.keys) + len(keys) > MAX_BATCH_KEYS:
            batch = self._open[deployment] = _LookupBatch(deployment, monotonic())
            self._queue.append(batch)
        batch.keys.update(dict.fromkeys(keys))
        batch.places.update(dict.fromkeys(places))
        future: asyncio.Future[R] = self._loop.create_future()
        if (end := begin_stage("store")) is not None:
            future.add_done_callback(end)
        batch.waiters.append((future, then))
        self._waiting += 1
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)
        return future

    @property
    def waiting(self) -> int:
        """Number of requests whose lookup has not begun."""
        return self._waiting

    async def close(self) -> None:
        """Cancel the lookups in progress."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pump(self) -> None:
        self._pump_due = False
        while self._queue and len(self._tasks) < MAX_LOOKUPS:
            batch = self._queue.popleft()
            if self._open.get(batch.deployment) is batch:
                del self._open[batch.deployment]
            self._waiting -= len(batch.waiters)
            task = self._loop.create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._pump()

    async def _run(self, batch: _LookupBatch[L]) -> None:
        waited = monotonic() - batch.asked_at
        if waited > self._timeout / 2:
            # The remaining time is too short to blame the store for a time-out.
            self._fail(batch, HttpError(503, "too many requests are waiting", RETRY))
            return
        seconds = self._timeout - waited
        try:
            found = await self._look(
                self._namespace, batch.deployment, list(batch.keys), list(batch.places), seconds
            )
        except StoreUnavailable:
            # The reason may contain an address, so it only goes to the log.
            self._fail(batch, HttpError(503, "the prediction store is not available", RETRY))
        except asyncio.CancelledError:
            self._fail(batch, HttpError(503, "the server is stopping", RETRY))
            raise
        except Exception as error:  # noqa: BLE001  (every request logs it under its own id)
            self._fail(batch, error)
        else:
            self._tell(batch, found)

    def _tell(self, batch: _LookupBatch[L], found: L) -> None:
        for future, then in batch.waiters:
            if future.done():
                continue
            try:
                future.set_result(then(found))
            except Exception as error:  # noqa: BLE001  (the request's answer, not ours)
                future.set_exception(error)

    @staticmethod
    def _fail(batch: _LookupBatch[L], error: Exception) -> None:
        for future, _ in batch.waiters:
            if not future.done():
                future.set_exception(error)
