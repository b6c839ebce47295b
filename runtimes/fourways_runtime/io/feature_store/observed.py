"""Prometheus metrics of a server's feature lookups."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from fourways_runtime.metrics import LATENCY_BUCKETS


class FeatureMetrics:
    """Lookups, entities found or missed, failures and durations."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        registry = registry or CollectorRegistry()
        lookups = Counter(
            "fourways_feature_lookups", "Queries sent to the feature database.", registry=registry
        )
        entities = Counter(
            "fourways_feature_entities",
            "Entities looked up; each counts once per query.",
            registry=registry,
        )
        misses = Counter("fourways_feature_misses", "Entities without a row.", registry=registry)
        kept = Counter(
            "fourways_feature_cached_entities",
            "Entities answered by a row that was looked up before (cacheTtl).",
            registry=registry,
        )
        failures = Counter(
            "fourways_feature_failures",
            "Lookups that timed out.",
            ("reason",),
            registry=registry,
        )
        seconds = Histogram(
            "fourways_feature_seconds",
            "From the first request of a lookup to its result.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.timed_out = failures.labels("timeout").inc
        self.unavailable = failures.labels("unavailable").inc
        self.kept = kept.inc
        self._lookups, self._entities, self._misses = lookups.inc, entities.inc, misses.inc
        self._seconds = seconds.observe

    def sent(self, entities: int) -> None:
        """Count a query when it is sent."""
        self._lookups()
        self._entities(entities)

    def answered(self, misses: int, seconds: float) -> None:
        """Count an answered query."""
        self._misses(misses)
        self._seconds(seconds)
