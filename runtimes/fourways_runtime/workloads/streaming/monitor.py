"""The monitor threads: metrics and checks that must stay current while nothing else progresses.

The lag, the age of the oldest event and the source's identity are checked every two seconds on a
thread that waits for neither the model, the store nor the reader. If they were measured as a
by-product of progress, they would freeze exactly when they matter. The store is pinged on another
thread, because a ping of a store that hangs does not return.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time

from fourways_api.values import seconds
from fourways_runtime.errors import Unavailable
from fourways_runtime.io.brokers.source import EventSource

from .ledger import StreamLedger
from .observed import StreamMetrics

LOOK_SECONDS = 2.0

_STILL_SECONDS = 10.0
"""How long a lag counts after it was last found: between two batches nothing is in flight, and the
age of the next event is not known for a moment."""

_log = logging.getLogger("fourways.streaming")


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """The progress of a partition."""

    written: int
    """The next position according to the store."""

    oldest: float | None
    """When the oldest event in flight was published (s since 1970); None if unknown or none is."""


class StreamMonitor:
    """Monitors one worker on a separate thread.

    Args:
        source: The source to check and to query for its newest positions.
        ledger: The ledger, which pings an idle store.
        metrics: The metrics to update.
        progress: Returns the progress of the partitions held. Called from the monitor's thread.
        now: Returns seconds since 1970, like brokers' timestamps.

    """

    def __init__(
        self,
        source: EventSource,
        ledger: StreamLedger,
        metrics: StreamMetrics,
        progress: Callable[[], Mapping[int, PartitionProgress]],
        now: Callable[[], float] = time,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._metrics = metrics
        self._progress = progress
        self._now = now
        self._newest: Mapping[int, int] = {}
        self._behind: dict[int, tuple[int, float]] = {}
        """For each partition that lags: its position in the store, and since when it is there."""

        self._oldest: float | None = None
        """When the oldest event that waits was published, or its wait began; None without one."""

        self._last_late: tuple[float, float] = (-_STILL_SECONDS, 0.0)
        """When an event was found to wait for longer than allowed, and how long it had waited."""

        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._every, args=(act,), name=name, daemon=True)
            for act, name in ((self.look, "monitor"), (self._ledger.ping, "ping"))
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def finish(self, patience: float) -> None:
        """End the threads. A ping that hangs is left behind."""
        self._ended.set()
        self._threads[0].join(patience)

    def late(self, most: float) -> float:
        """Return for how long an event has waited (s), or 0 if none has for longer than ``most``.

        It is right also while the monitor's own thread waits for a broker. Call it from any thread.
        """
        now, oldest = self._now(), self._oldest
        if oldest is not None and now - oldest > most:
            self._last_late = now, now - oldest
        at, waited = self._last_late
        return waited if now - at < _STILL_SECONDS else 0.0

    def look(self) -> None:
        """Measure and check once."""
        try:
            self._source.check()
            self._newest = self._source.newest()
        except Unavailable as error:
            # The source reports an outage itself; the last known newest positions stay in use.
            _log.info("the newest positions are not known: %s", error)
        self._show()

    def _every(self, act: Callable[[], None]) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                act()
            except Exception:  # noqa: BLE001  (logged; the figures of one look are missing)
                if not self._ended.is_set():
                    _log.exception("the monitor failed; continuing")

    def _show(self) -> None:
        now = self._now()
        lag: dict[int, int] = {}
        oldest = now
        behind: dict[int, tuple[int, float]] = {}
        for partition, progress in self._progress().items():
            newest = self._newest.get(partition)
            if newest is None:
                continue
            lag[partition] = max(0, newest - progress.written)
            if not lag[partition]:
                continue
            # An event that was not read has no known time; its wait counts from when the lag began.
            at, since = self._behind.get(partition, (progress.written, now))
            behind[partition] = (at, since) if at == progress.written else (progress.written, now)
            oldest = min(oldest, behind[partition][1], progress.oldest or now)
        self._behind = behind
        self._oldest = oldest if any(lag.values()) else None
        self._metrics.lag(lag, now - oldest)


def lag_message(waited: float, limit: str) -> str:
    """Say that an event has waited for too long (s). The words change only as the wait doubles."""
    step = seconds(limit)
    while 2 * step <= waited:
        step *= 2
    return (
        f"an event has waited for its prediction for more than {step:g} s (streaming.maxLag is "
        f"{limit}); the metric fourways_stream_lag shows how many wait"
    )
