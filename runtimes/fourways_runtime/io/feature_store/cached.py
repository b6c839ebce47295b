"""Rows of a feature database that are used again for a while, by entity key.

Owns which rows are kept and for how long. A key that is being looked up is not looked up a second
time: requests that ask for it meanwhile get the same row. What the database does not have is not
kept, so that a new entity is known at once; neither is a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import Row

from .base import FeatureDatabase
from .coalesced import CoalescedFeatures, Found
from .observed import FeatureMetrics

MAX_VALUES = 500_000
"""Maximum number of values that are kept, which take about 50 MB; the oldest rows go first."""

_TEXT = 64
"""So many characters of a text count as a value."""


class _Kept(NamedTuple):
    row: Row
    asked: float
    size: int


class CachedFeatures(CoalescedFeatures):
    """A feature database, asked at most once for each key within a time."""

    def __init__(
        self,
        source: FeatureDatabase,
        timeout: float,
        metrics: FeatureMetrics,
        ttl: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``timeout`` is the time budget of a request, ``ttl`` how long rows are used; seconds."""
        super().__init__(source, timeout, metrics)
        self._ttl = ttl
        self._clock = clock
        self._size = 0
        self._kept: dict[Key, _Kept] = {}
        self._flights: dict[Key, asyncio.Task[Found]] = {}

    async def fetch(self, keys: Sequence[Key]) -> Found:
        """Return the rows of ``keys``. Raises FeaturesUnavailable."""
        now = self._clock()
        self._forget(now)
        wanted = dict.fromkeys(keys)
        found: dict[Key, Row] = {}
        for key in wanted:
            kept = self._kept.get(key)
            if kept is not None and now - kept.asked < self._ttl:
                found[key] = kept.row
        self._metrics.kept(len(found))
        others = [key for key in wanted if key not in found]
        unasked = [key for key in others if key not in self._flights]
        if unasked:
            # A task of its own: a request that is cancelled takes no row away from the others.
            flight = asyncio.ensure_future(self._look_up(unasked, now))
            flight.add_done_callback(_heard)
            self._flights.update(dict.fromkeys(unasked, flight))
        for flight in {self._flights[key]: None for key in others}:
            found.update(await asyncio.shield(flight))
        return found

    def age(self, key: Key) -> float:
        """Return how many seconds ago the kept row of a key was looked up; 0 if none is kept."""
        kept = self._kept.get(key)
        return 0.0 if kept is None else self._clock() - kept.asked

    async def _look_up(self, keys: list[Key], now: float) -> Found:
        try:
            found = await super().fetch(keys)
        finally:
            for key in keys:
                del self._flights[key]
        for key in keys:
            if (row := found.get(key)) is not None:
                self._keep(key, _Kept(row, now, sum(map(_size_of, row.values()))))
        return found

    def _keep(self, key: Key, kept: _Kept) -> None:
        self._drop(key)
        self._kept[key] = kept
        self._size += kept.size
        while self._size > MAX_VALUES:
            self._drop(next(iter(self._kept)))

    def _forget(self, now: float) -> None:
        """Drop rows that are too old; they are in the order of their answers, nearly by age."""
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if now - kept.asked < self._ttl:
                return
            self._drop(key)

    def _drop(self, key: Key) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self._size -= kept.size


def _heard(flight: asyncio.Task[Found]) -> None:
    """Note the outcome of a lookup whose requests may all have gone."""
    if not flight.cancelled():
        flight.exception()


def _size_of(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(_size_of, value))
    return 1 + len(value) // _TEXT if isinstance(value, str) else 1
