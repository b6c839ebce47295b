"""What servers measure of their requests, in Prometheus' terms.

Owns the HTTP metrics every server of ours has in common. Children of labelled metrics are found
once for a route and kept on it: finding one by its labels costs more than counting.
"""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from .http import Request, Response, Route

LATENCY_BUCKETS = (
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
"""Seconds."""


class _RouteObserver:
    """One route's children: a counter for each status seen, and the histogram."""

    __slots__ = ("_counter", "_counts", "_pattern", "observe")

    def __init__(self, counter: Counter, latency: Histogram, pattern: str) -> None:
        self._counter = counter
        self._pattern = pattern
        self._counts: dict[int, Counter] = {}
        self.observe = latency.labels(pattern).observe

    def count(self, status: int) -> None:
        child = self._counts.get(status)
        if child is None:
            child = self._counts[status] = self._counter.labels(self._pattern, str(status))
        child.inc()


class HttpMetrics:
    """Requests by route and code, and how long they took. ``observe`` goes to the server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "fourways_http_requests",
            "Requests answered, by route pattern and status code.",
            ("route", "code"),
            registry=registry,
        )
        self._latency = Histogram(
            "fourways_http_request_duration_seconds",
            "From a request's last byte read to its answer ready.",
            ("route",),
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._unrouted = _RouteObserver(self._requests, self._latency, "none")

    def observe(self, request: Request, status: int, started: float) -> None:
        """Count one answer; ``started`` is ``perf_counter()`` when the request was whole."""
        observer = self._unrouted if request.route is None else self._observer(request.route)
        observer.count(status)
        observer.observe(perf_counter() - started)

    def _observer(self, route: Route) -> _RouteObserver:
        if route.observer is None:
            route.observer = _RouteObserver(self._requests, self._latency, route.pattern)
        observer: _RouteObserver = route.observer
        return observer


def exposition(registry: CollectorRegistry) -> Response:
    """Return the registry as Prometheus scrapes it."""
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST.encode("ascii"))
