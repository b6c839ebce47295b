"""What servers measure of their requests, in Prometheus' terms.

Owns the HTTP metrics every server of ours has in common. They are counted in plain numbers, by one
event loop, and put into Prometheus' shape when somebody asks: the client's own counters are made
for threads, and cost as much as parsing the request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from time import perf_counter

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from fourways_http import HttpRoute, Request, Response

LATENCY_BUCKETS = (
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
)
"""Seconds."""


class PlainCounter(Collector):
    """A count without labels, kept by one thread."""

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        self._name, self._text = name, text
        self._count = 0
        registry.register(self)

    def inc(self, count: int = 1) -> None:
        """Count."""
        self._count += count

    def collect(self) -> Iterator[Metric]:
        """Return the metric as Prometheus' client wants it."""
        yield CounterMetricFamily(self._name, self._text, self._count)


class PlainHistogram(Collector):
    """A histogram without labels, kept by one thread."""

    def __init__(
        self, name: str, text: str, edges: Sequence[float], registry: CollectorRegistry
    ) -> None:
        """``edges`` are the buckets' upper bounds, in order; the last is infinite by itself."""
        self._name, self._text = name, text
        self._edges = tuple(edges)
        self._buckets = [0] * (len(edges) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._buckets[bisect_left(self._edges, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        """Return the metric as Prometheus' client wants it."""
        buckets = _cumulative(self._edges, self._buckets)
        yield HistogramMetricFamily(self._name, self._text, buckets, self._sum)


def _cumulative(edges: Sequence[float], buckets: list[int]) -> list[tuple[str, float]]:
    names = (*(str(float(edge)) for edge in edges), "+Inf")
    return list(zip(names, map(float, accumulate(buckets)), strict=True))


class _RouteObserver:
    """What is known of one route: answers by status, and how long they took."""

    __slots__ = ("buckets", "counts", "pattern", "seconds")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.counts: dict[int, int] = {}
        self.buckets = [0] * (len(LATENCY_BUCKETS) + 1)
        self.seconds = 0.0


class HttpMetrics(Collector):
    """Requests by route and code, and how long they took. ``observe`` goes to the server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._unrouted = _RouteObserver("none")
        self._observers = {"none": self._unrouted}
        registry.register(self)

    def observe(self, request: Request, status: int, started: float) -> None:
        """Count one answer; ``started`` is ``perf_counter()`` when the request was whole."""
        took = perf_counter() - started
        route = request.route
        observer: _RouteObserver = (
            self._unrouted if route is None else route.observer or self._observer(route)
        )
        observer.counts[status] = observer.counts.get(status, 0) + 1
        observer.buckets[bisect_left(LATENCY_BUCKETS, took)] += 1
        observer.seconds += took

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as Prometheus' client wants them."""
        requests = CounterMetricFamily(
            "fourways_http_requests",
            "Requests answered, by route pattern and status code.",
            labels=("route", "code"),
        )
        latency = HistogramMetricFamily(
            "fourways_http_request_duration_seconds",
            "From a request's last byte read to its answer ready.",
            labels=("route",),
        )
        for pattern, observer in self._observers.items():
            for status, count in observer.counts.items():
                requests.add_metric((pattern, str(status)), count)
            if observer.counts:
                buckets = _cumulative(LATENCY_BUCKETS, observer.buckets)
                latency.add_metric((pattern,), buckets, observer.seconds)
        yield requests
        yield latency

    def _observer(self, route: HttpRoute) -> _RouteObserver:
        found = self._observers.get(route.pattern)
        if found is None:
            found = self._observers[route.pattern] = _RouteObserver(route.pattern)
        route.observer = found
        return found


def exposition(registry: CollectorRegistry) -> Response:
    """Return the registry as Prometheus scrapes it."""
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST.encode("ascii"))
