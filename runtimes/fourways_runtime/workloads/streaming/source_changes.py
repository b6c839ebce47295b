"""Count, log and keep changes of the source that lose events or cause them to be scored again.

Each change is reported once, however often the worker restarts at the same position.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from .observed import StreamMetrics

_KEPT = 5

EXPIRED_SECONDS = 600.0
"""How long after the last loss to retention the worker reports it as a fault."""

_log = logging.getLogger("fourways.streaming")


@dataclass(frozen=True, slots=True)
class _Loss:
    """The last positions that retention deleted, and how many in all since losses began."""

    at: float
    text: str
    positions: int


class SourceChanges:
    """The source changes that one worker has detected; see :class:`.reader.LogChanges`."""

    def __init__(self, metrics: StreamMetrics, now: Callable[[], float] = monotonic) -> None:
        self._metrics = metrics
        self._now = now
        self._expired: dict[int, int] = {}
        self._last_loss: _Loss | None = None
        self._warnings: deque[str] = deque(maxlen=_KEPT)

    def warnings(self) -> list[str]:
        """Return the latest warnings, newest last."""
        return list(self._warnings)

    def recently_expired(self) -> str:
        """Return what retention has deleted, if some of it recently; otherwise an empty string."""
        last = self._last_loss
        if last is None or self._now() - last.at > EXPIRED_SECONDS:
            return ""
        return f"{last.text}; {last.positions:,} positions lost so far"

    def expired(self, partition: int, first: int, end: int) -> None:
        """Record that retention deleted the positions from ``first`` up to ``end``."""
        first = max(first, self._expired.get(partition, first))
        if first >= end:
            return
        self._expired[partition] = end
        self._metrics.expired(end - first)
        text = (
            f"the broker's retention deleted the positions {first} to {end - 1} of partition "
            f"{partition} before their events were scored"
        )
        before, now = self._last_loss, self._now()
        recent = before.positions if before and now - before.at <= EXPIRED_SECONDS else 0
        self._last_loss = _Loss(now, text, recent + end - first)
        self._warn(text)

    def restored(self, partition: int, position: int, end: int) -> None:
        """Record that a log ends at ``end``, below the store's ``position``."""
        self._expired.pop(partition, None)
        self._metrics.source_changed()
        self._warn(
            f"the log of partition {partition} ends at {end}, below the position {position} in the "
            "store: it was restored to an older state. Its events are scored again from the oldest"
        )

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        _log.warning("%s", text)
