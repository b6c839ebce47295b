"""Progress of runs, as metrics. A run's workers come and go, so the gateway exposes its metrics.

A scrape returns the result of the previous update. The store is queried in the background, at most
every few seconds, and never delays a scrape.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

from prometheus_client import CollectorRegistry, Gauge

from fourways_runtime.io.store.runs.record import RunProgress

LOOK_SECONDS = 10.0

_FIGURES: dict[str, tuple[str, Callable[[RunProgress], float]]] = {
    "fourways_run_rows": ("Rows recorded by the run in progress.", lambda p: p.rows),
    "fourways_run_rejects": ("Rows rejected by the run in progress.", lambda p: p.rejects),
    "fourways_run_rows_per_second": ("Speed of the run in progress.", lambda p: p.rows_per_second),
    "fourways_run_seconds_left": (
        "Expected remaining time of the run in progress; NaN where that is not known.",
        lambda p: float("nan") if p.eta_seconds is None else p.eta_seconds,
    ),
    "fourways_run_workers": (
        "Live workers of the run in progress.",
        lambda p: sum(worker.alive for worker in p.workers),
    ),
}

UnderWay = dict[str, RunProgress]
"""By deployment."""


class RunGauges:
    """Gauges of unfinished runs, by deployment; a finished run has none."""

    def __init__(
        self, registry: CollectorRegistry, look: Callable[[], Awaitable[UnderWay]]
    ) -> None:
        self._look = look
        self._looked = float("-inf")
        self._shown: set[str] = set()
        self._gauges = [
            (Gauge(name, text, ("deployment",), registry=registry), figure)
            for name, (text, figure) in _FIGURES.items()
        ]

    @property
    def due(self) -> bool:
        """Whether the next update is due."""
        return monotonic() - self._looked >= LOOK_SECONDS

    async def look(self) -> None:
        """Query the progress of runs. If that raises, the gauges keep their values."""
        self._looked = monotonic()
        found = await self._look()
        for gone in self._shown - found.keys():
            for gauge, _ in self._gauges:
                gauge.remove(gone)
        for deployment, progress in found.items():
            for gauge, figure in self._gauges:
                gauge.labels(deployment).set(figure(progress))
        self._shown = set(found)
