"""The gateway's metrics, by deployment and mode.

Owns the limit on label values: only deployments that have a route or a published run get children
of their own, and at most :data:`MAX_DEPLOYMENTS` of them.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fourways_http import Request
from fourways_runtime.metrics import LATENCY_BUCKETS, HttpMetrics

from .views import DeploymentCounters

MAX_DEPLOYMENTS = 1000


class _Observer:
    __slots__ = ("_counter", "_counts", "_labels", "observe")

    def __init__(self, counter: Counter, latency: Histogram, deployment: str, mode: str) -> None:
        self._counter = counter
        self._labels = (deployment, mode)
        self._counts: dict[int, Counter] = {}
        self.observe = latency.labels(deployment, mode).observe

    def count(self, status: int) -> None:
        child = self._counts.get(status)
        if child is None:
            child = self._counts[status] = self._counter.labels(*self._labels, str(status))
        child.inc()


class UpstreamGauges:
    """What is under way to a deployment's model servers. Autoscalers read it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._connections = Gauge(
            "fourways_upstream_connections",
            "Open connections to a deployment's model server.",
            ("deployment",),
            registry=registry,
        )
        self._in_flight = Gauge(
            "fourways_requests_in_flight",
            "Requests that wait for a deployment's model servers or are answered by them.",
            ("deployment",),
            registry=registry,
        )

    def follow(
        self, name: str, connections: Callable[[], int], in_flight: Callable[[], int]
    ) -> None:
        """Have a deployment's numbers read when metrics are scraped."""
        self._connections.labels(name).set_function(lambda: float(connections()))
        self._in_flight.labels(name).set_function(lambda: float(in_flight()))


class GatewayMetrics:
    """Metrics of requests by deployment, mode and code. The server calls ``observe``."""

    def __init__(self, registry: CollectorRegistry, mode_of: Callable[[str], str | None]) -> None:
        """``mode_of`` returns a known deployment's mode, and None for any other name."""
        self._http = HttpMetrics(registry).observe
        self._mode_of = mode_of
        self._observers: dict[str, _Observer] = {}
        self._requests = Counter(
            "fourways_gateway_requests",
            "Requests answered, by deployment, mode and status code.",
            ("deployment", "mode", "code"),
            registry=registry,
        )
        self._latency = Histogram(
            "fourways_gateway_request_duration_seconds",
            "From the last byte of a request to its response.",
            ("deployment", "mode"),
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.faults = Counter(
            "fourways_gateway_faults",
            "Failed requests that are not the client's fault: model or features.",
            ("deployment", "party"),
            registry=registry,
        )
        self.upstream = UpstreamGauges(registry)

    def observe(self, request: Request, status: int, started: float) -> None:
        """Record one response."""
        self._http(request, status, started)
        name = request.params.get("deployment")
        if name is None:
            return
        observer = self._observers.get(name)
        if observer is None:
            mode = self._mode_of(name)
            if mode is None or len(self._observers) >= MAX_DEPLOYMENTS:
                return
            observer = _Observer(self._requests, self._latency, name, mode)
            self._observers[name] = observer
        observer.count(status)
        observer.observe(perf_counter() - started)


def stream_counters(registry: CollectorRegistry) -> Callable[[str], DeploymentCounters]:
    """Return a factory of a stream's counters: keys requested, and keys without a fresh answer."""
    keys = Counter(
        "fourways_stream_keys", "Entity keys asked for.", ("deployment",), registry=registry
    )
    misses = Counter(
        "fourways_stream_misses",
        "Entity keys asked for that have no fresh answer.",
        ("deployment",),
        registry=registry,
    )
    return lambda name: DeploymentCounters(keys.labels(name), misses.labels(name))
