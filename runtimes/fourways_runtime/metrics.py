"""HTTP metrics of our servers, for Prometheus.

Owns the HTTP metrics that all our servers share. One event loop counts them in plain numbers, which
are converted to Prometheus' format on request: the client library's own counters are made for
threads, and cost as much as parsing the request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from fourways_http import HttpRoute, Request, Response

LATENCY_BUCKETS: Final = (
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
    """A counter without labels, used by one thread."""

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        self._name, self._text = name, text
        self._count = 0
        registry.register(self)

    def inc(self, count: int = 1) -> None:
        """Add ``count``."""
        self._count += count

    def collect(self) -> Iterator[Metric]:
        """Return the metric in the form that Prometheus' client needs."""
        yield CounterMetricFamily(self._name, self._text, self._count)


class PlainHistogram(Collector):
    """A histogram without labels, used by one thread."""

    def __init__(
        self, name: str, text: str, edges: Sequence[float], registry: CollectorRegistry
    ) -> None:
        """``edges`` are the buckets' upper bounds, in order; an infinite last one is added."""
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
        """Return the metric in the form that Prometheus' client needs."""
        buckets = _cumulative(self._edges, self._buckets)
        yield HistogramMetricFamily(self._name, self._text, buckets, self._sum)


def _cumulative(edges: Sequence[float], buckets: list[int]) -> list[tuple[str, float]]:
    names = (*(str(float(edge)) for edge in edges), "+Inf")
    return list(zip(names, map(float, accumulate(buckets)), strict=True))


class _RouteObserver:
    """The measurements of one route: responses by status, and their durations."""

    __slots__ = ("buckets", "counts", "pattern", "seconds")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.counts: dict[int, int] = {}
        self.buckets = [0] * (len(LATENCY_BUCKETS) + 1)
        self.seconds = 0.0


class HttpMetrics(Collector):
    """Requests by route and code, and their durations. ``observe`` goes to the server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._unrouted = _RouteObserver("none")
        self._observers = {"none": self._unrouted}
        registry.register(self)

    def observe(self, request: Request, status: int, started: float) -> None:
        """Count one response; ``started`` is ``perf_counter()`` when the request was complete."""
        took = perf_counter() - started
        route = request.route
        observer: _RouteObserver = (
            self._unrouted if route is None else route.observer or self._observer(route)
        )
        observer.counts[status] = observer.counts.get(status, 0) + 1
        observer.buckets[bisect_left(LATENCY_BUCKETS, took)] += 1
        observer.seconds += took

    def collect(self) -> Iterator[Metric]:
        """Return the metrics in the form that Prometheus' client needs."""
        requests = CounterMetricFamily(
            "fourways_http_requests",
            "Requests answered, by route pattern and status code.",
            labels=("route", "code"),
        )
        latency = HistogramMetricFamily(
            "fourways_http_request_duration_seconds",
            "From the last byte of a request to its response.",
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
    """Return the registry in the format that Prometheus scrapes."""
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST.encode("ascii"))
