"""A comparison with the training profile as metrics, of one worker or of several deployments.

The labels of the metrics are names of the contract and of deployments, which bounds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from fourways_api import DriftStatus, FieldDrift

Found = tuple[Sequence[FieldDrift], DriftStatus | None]
"""The comparison of each field, and in short."""


def drift_metrics(found: Mapping[str, Found]) -> Iterator[Metric]:
    """Return the metrics by deployment; of a single one without a name, without that label."""
    of = () if "" in found else ("deployment",)
    psi = GaugeMetricFamily(
        "fourways_drift_psi",
        "Population stability index of the window against the training profile.",
        labels=(*of, "side", "field"),
    )
    ks = GaugeMetricFamily(
        "fourways_drift_ks",
        "Kolmogorov-Smirnov distance of the window, over the profile's bins.",
        labels=(*of, "side", "field"),
    )
    missing = GaugeMetricFamily(
        "fourways_drift_missing_share",
        "Share of missing values in the window.",
        labels=(*of, "side", "field"),
    )
    drifted = GaugeMetricFamily(
        "fourways_drift_detected",
        "1 if the index is above maxDrift and above what chance explains.",
        labels=(*of, "side", "field"),
    )
    records = GaugeMetricFamily(
        "fourways_drift_records",
        "Records that the window's comparison is based on.",
        labels=of,
    )
    rejects = GaugeMetricFamily(
        "fourways_drift_reject_share",
        "Share of rejected records in the window.",
        labels=of,
    )
    for name, (fields, status) in found.items():
        whose = (name,) if of else ()
        for each in fields:
            labels = (*whose, each.side, each.name)
            psi.add_metric(labels, each.psi)
            missing.add_metric(labels, each.missing)
            drifted.add_metric(labels, float(each.drifted))
            if each.ks is not None:
                ks.add_metric(labels, each.ks)
        records.add_metric(whose, status.records if status else 0)
        rejects.add_metric(whose, status.rejects if status else 0.0)
    yield from (psi, ks, missing, drifted, records, rejects)
