"""The monitor thread: metrics and checks that must stay current while nothing else progresses.

The lag, the age of the oldest event, the store's availability and the source's identity are checked
every two seconds on a thread that waits for neither the model, the store nor the reader. If they
were measured as a by-product of progress, they would freeze exactly when they matter.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time

from fourways_runtime.errors import Unavailable
from fourways_runtime.io.brokers.source import EventSource

from .ledger import StreamLedger
from .observed import StreamMetrics

LOOK_SECONDS = 2.0

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

        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join(seconds)

    def look(self) -> None:
        """Measure and check once."""
        self._ledger.ping()
        try:
            self._source.check()
            self._newest = self._source.newest()
        except Unavailable as error:
            # The source reports an outage itself; the last known newest positions stay in use.
            _log.info("the newest positions are not known: %s", error)
        self._show()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # noqa: BLE001  (logged; the figures of one look are missing)
                if not self._ended.is_set():
                    _log.exception("the monitor failed; continuing")

    def _show(self) -> None:
        now = self._now()
        lag: dict[int, int] = {}
        ages = [0.0]
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
            ages.append(now - min(behind[partition][1], progress.oldest or now))
        self._behind = behind
        self._metrics.lag(lag, max(ages))
