"""A queue of keys, each of which at most one worker processes at a time.

It decides when and how often a key is processed, never what is done. It must not remember why a key
was added: each reconcile observes everything again, so a hundred reasons need only one. A key that
is already waiting is not added again; a key added while it is processed is processed once more.

A failure is retried after a random share of a growing pause (full jitter, so that a thousand keys
that failed together are not retried together). Adding the key skips that pause: something changed,
so the next attempt may succeed. Nothing ends the attempts: a key is retried as long as its
deployment exists, so this loop has the pauses of :mod:`fourways_api.backoff` and no deadline.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from fourways_api.backoff import Backoff

from .errors import OperatorError

logger = logging.getLogger(__name__)

BASE_PAUSE = 0.5
LONGEST_PAUSE = 60.0

Result = Literal["done", "retry", "bug"]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One ModelDeployment; with an empty name the gateway of its namespace."""

    namespace: str
    name: str = ""

    def __str__(self) -> str:
        """Return the key in readable form."""
        return f"{self.namespace}/{self.name or '(gateway)'}"


class WorkQueue:
    """Calls ``work`` with the queued keys. Not thread-safe: use it only in its event loop."""

    def __init__(
        self,
        work: Callable[[Key], Awaitable[None]],
        *,
        workers: int = 4,
        time_limit: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_result: Callable[[Key, Result, float], None] = lambda *_: None,
    ) -> None:
        self._work = work
        self._workers = workers
        self._time_limit = time_limit
        self._clock = clock
        self._random = random
        self._sleep = sleep
        self._on_result = on_result
        # None wakes an idle worker, so that it notices that it should stop.
        self._ready: asyncio.Queue[Key | None] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._backoffs: dict[Key, Backoff] = {}
        self._timers: dict[Key, tuple[float, asyncio.Task[None]]] = {}
        self._stopping = False
        self._progress = clock()

    def add(self, key: Key) -> None:
        """Queue a key for the next free worker."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer[1].cancel()
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            if self.idle:
                self._progress = self._clock()
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Queue a key after this many seconds, or earlier if it is added earlier."""
        due = self._clock() + seconds
        known = self._timers.get(key)
        if key in self._waiting or (known is not None and known[0] <= due):
            return
        if known is not None:
            known[1].cancel()
        self._timers[key] = (due, asyncio.create_task(self._fire(key, seconds)))

    async def _fire(self, key: Key, seconds: float) -> None:
        await self._sleep(seconds)
        # Removed here, so that add does not cancel it: this task is the timer.
        del self._timers[key]
        self.add(key)

    async def run(self) -> None:
        """Run until stopped; then finish the keys in progress and drop the waiting ones."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._worker())
        finally:
            for _, timer in self._timers.values():
                timer.cancel()

    def stop(self) -> None:
        """Start no more keys. Dropping the rest is safe: the next start reconciles everything."""
        self._stopping = True
        for _ in range(self._workers):
            self._ready.put_nowait(None)

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            if key is None or self._stopping:
                return
            self._waiting.discard(key)
            self._running.add(key)
            self._progress = started = self._clock()
            try:
                result = await self._try(key)
            finally:
                self._running.discard(key)
            self._progress = self._clock()
            self._on_result(key, result, self._progress - started)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    async def _try(self, key: Key) -> Result:
        try:
            async with asyncio.timeout(self._time_limit):
                await self._work(key)
        except (OperatorError, TimeoutError) as error:
            pause = self._pause(key, getattr(error, "retry_after", 0.0))
            what = str(error) or f"took longer than {self._time_limit:g} s"
            logger.warning("%s: %s; next attempt in %.1f s", key, what, pause)
            self.add_after(key, pause)
            return "retry"
        except Exception:
            # A bug with one key must not stop the processing of the others.
            pause = self._pause(key, 0.0)
            logger.exception("%s: unexpected, please report it; next attempt in %.1f s", key, pause)
            self.add_after(key, pause)
            return "bug"
        self._backoffs.pop(key, None)
        return "done"

    def _pause(self, key: Key, at_least: float) -> float:
        backoff = self._backoffs.get(key)
        if backoff is None:
            backoff = Backoff.jittered(BASE_PAUSE, LONGEST_PAUSE, self._random)
            self._backoffs[key] = backoff
        return backoff.pause(at_least)

    @property
    def depth(self) -> int:
        """Number of keys that wait for a worker."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether no key is waiting for a worker or being processed."""
        return not self._waiting and not self._running

    @property
    def delayed(self) -> int:
        """Number of keys that wait for their timer."""
        return len(self._timers)

    def stuck_for(self) -> float:
        """Return for how many seconds no key has started or ended although there is work."""
        return 0.0 if self.idle else self._clock() - self._progress
