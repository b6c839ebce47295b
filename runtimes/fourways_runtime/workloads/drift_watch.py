"""Watches the records of a permanent worker for drift: counts on a thread, and shows metrics.

The labels of the metrics are names of the contract, which bounds them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fourways_api import Contract, Monitoring
from fourways_api.training_profile import TrainingProfile
from fourways_api.values import seconds
from fourways_runtime.scoring.live_profile import LiveProfile
from fourways_runtime.scoring.profile import RecordProfiler

COUNT_SECONDS = 0.5
"""Time between two counts."""


_log = logging.getLogger("fourways.drift")


class DriftGauges(Collector):
    """The last comparison of each input and output, as metrics."""

    def __init__(self, live: LiveProfile, registry: CollectorRegistry) -> None:
        self._live = live
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics in the form that Prometheus' client needs."""
        psi = GaugeMetricFamily(
            "fourways_drift_psi",
            "Population stability index of the window against the training profile.",
            labels=("side", "field"),
        )
        ks = GaugeMetricFamily(
            "fourways_drift_ks",
            "Kolmogorov-Smirnov distance of the window, over the profile's bins.",
            labels=("side", "field"),
        )
        missing = GaugeMetricFamily(
            "fourways_drift_missing_share",
            "Share of missing values in the window.",
            labels=("side", "field"),
        )
        drifted = GaugeMetricFamily(
            "fourways_drift_detected",
            "1 if the index is above maxDrift and above what chance explains.",
            labels=("side", "field"),
        )
        for each in self._live.fields:
            labels = (each.side, each.name)
            psi.add_metric(labels, each.psi)
            missing.add_metric(labels, each.missing)
            drifted.add_metric(labels, float(each.drifted))
            if each.ks is not None:
                ks.add_metric(labels, each.ks)
        yield from (psi, ks, missing, drifted)
        status = self._live.status
        yield GaugeMetricFamily(
            "fourways_drift_records",
            "Records that the window's comparison is based on.",
            value=status.records if status else 0,
        )
        yield GaugeMetricFamily(
            "fourways_drift_reject_share",
            "Share of rejected records in the window.",
            value=status.rejects if status else 0.0,
        )


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
    threading.Thread(target=_count, args=(live,), name="drift", daemon=True).start()
    return live


def _count(live: LiveProfile) -> None:
    pause = threading.Event()
    while not pause.wait(COUNT_SECONDS):
        try:
            live.count()
        except Exception:  # noqa: BLE001  (logged; predictions do not depend on it)
            _log.exception("the records of one interval are not compared")
