"""Watches the records of a permanent worker for drift: counts on a thread, and shows metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fourways_api import Contract, Monitoring
from fourways_api.training_profile import TrainingProfile
from fourways_api.values import seconds
from fourways_runtime.scoring.live_profile import LiveProfile
from fourways_runtime.scoring.profile import RecordProfiler

from .drift_metrics import drift_metrics
from .repeating import repeat

COUNT_SECONDS = 0.5
"""Time between two counts."""


class DriftGauges(Collector):
    """The last comparison of each input and output, as metrics."""

    def __init__(self, live: LiveProfile, registry: CollectorRegistry) -> None:
        self._live = live
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics in the form that Prometheus' client needs."""
        yield from drift_metrics({"": (self._live.fields, self._live.status)})


def watch_drift(
    profile: TrainingProfile | None,
    monitoring: Monitoring | None,
    contract: Contract,
    registry: CollectorRegistry,
) -> LiveProfile | None:
    """Start to watch; return where records are noted, or None if they are not compared."""
    if profile is None or monitoring is None:
        return None
    live = LiveProfile(
        RecordProfiler(profile),
        [field.name for field in contract.flat_inputs],
        window=seconds(monitoring.window),
        max_drift=monitoring.max_drift,
    )
    DriftGauges(live, registry)

    def count() -> float:
        live.count()
        return COUNT_SECONDS

    repeat("drift", count, COUNT_SECONDS)
    return live
