"""The Prometheus metrics of a stream worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fourways_runtime.metrics import LATENCY_BUCKETS

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class StreamMetrics:
    """Metrics of events, dead letters, batches, lag and the time of each stage."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter("fourways_stream_events", "Events processed.", registry=registry)
        self._dead = Counter(
            "fourways_stream_dead_letters", "Events that will not be scored.", registry=registry
        )
        self._expired = Counter(
            "fourways_stream_expired_events",
            "Positions that the broker's retention deleted before they were scored.",
            registry=registry,
        )
        self._batches = Histogram(
            "fourways_stream_batch_events",
            "Events written together.",
            buckets=_SIZES,
            registry=registry,
        )
        self._resets = Counter(
            "fourways_stream_resets",
            "Times the worker restarted from the store's positions: another worker moved them, or "
            "the store was unavailable.",
            registry=registry,
        )
        self._source_changes = Counter(
            "fourways_stream_source_changes",
            "Times the topic or stream was recreated, or restored to an older state.",
            registry=registry,
        )
        stages = Histogram(
            "fourways_stream_stage_seconds",
            "Seconds a micro-batch took, by stage: score (with decoding), write.",
            ("stage",),
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._lag = Gauge(
            "fourways_stream_lag",
            "Positions between the store's and the newest, by partition.",
            ("partition",),
            registry=registry,
        )
        self._oldest = Gauge(
            "fourways_stream_oldest_event_seconds",
            "Age of the oldest event that is not in the store yet; 0 if there is none.",
            registry=registry,
        )
        self.lags: Mapping[int, int] = {}
        """The lag of each partition, as last measured."""

        self.oldest_seconds = 0.0
        """Age of the oldest waiting event, as last measured."""

        self._ready = Gauge("fourways_stream_ready", "1 while events are read.", registry=registry)
        self.scored: Callable[[float], None] = stages.labels("score").observe
        self.written: Callable[[float], None] = stages.labels("write").observe
        self.reset: Callable[[], None] = self._resets.inc
        self.source_changed: Callable[[], None] = self._source_changes.inc
        self.expired: Callable[[float], None] = self._expired.inc

    def done(self, events: int, dead: int) -> None:
        """Count a batch that is in the store."""
        self._events.inc(events)
        self._batches.observe(events)
        if dead:
            self._dead.inc(dead)

    def lag(self, lag: Mapping[int, int], oldest_seconds: float) -> None:
        """Set the lag of each partition and the age of the oldest waiting event."""
        self.lags, self.oldest_seconds = dict(lag), oldest_seconds
        self._lag.clear()
        for partition, positions in lag.items():
            self._lag.labels(str(partition)).set(positions)
        self._oldest.set(oldest_seconds)

    def ready_when(self, ready: Callable[[], bool]) -> None:
        """Compute readiness with ``ready`` at each scrape."""
        self._ready.set_function(lambda: float(ready()))
