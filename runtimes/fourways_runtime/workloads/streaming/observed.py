"""What a stream worker measures of itself, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fourways_runtime.metrics import LATENCY_BUCKETS

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class StreamMetrics:
    """Events, dead letters, batches, lag and where the time goes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter("fourways_stream_events", "Events done with.", registry=registry)
        self._dead = Counter(
            "fourways_stream_dead_letters", "Events that will not be scored.", registry=registry
        )
        self._batches = Histogram(
            "fourways_stream_batch_events",
            "Events written together.",
            buckets=_SIZES,
            registry=registry,
        )
        self._resets = Counter(
            "fourways_stream_resets",
            "Times positions were asked anew: overtaken by another worker, or the store was away.",
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
        self._ready = Gauge("fourways_stream_ready", "1 while events are read.", registry=registry)
        self.scored: Callable[[float], None] = stages.labels("score").observe
        self.written: Callable[[float], None] = stages.labels("write").observe
        self.reset: Callable[[], None] = self._resets.inc

    def done(self, events: int, dead: int) -> None:
        """Count a batch that is in the store."""
        self._events.inc(events)
        self._batches.observe(events)
        if dead:
            self._dead.inc(dead)

    def lag(self, newest: Mapping[int, int], stands: Mapping[int, int]) -> None:
        """Show how far behind each partition is."""
        self._lag.clear()
        for partition, position in stands.items():
            if partition in newest:
                self._lag.labels(str(partition)).set(max(0, newest[partition] - position))

    def ready_when(self, ready: Callable[[], bool]) -> None:
        """Show readiness as it is asked for."""
        self._ready.set_function(lambda: float(ready()))
