"""The model server's metrics of its model. None of them has labels: a process serves one model, and
a metric without labels needs no lookup."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from fourways_runtime.metrics import LATENCY_BUCKETS, PlainCounter, PlainHistogram

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class ServingMetrics:
    """Metrics of requests and rows scored, batch sizes, and the model's time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = PlainCounter(
            "fourways_inference_requests", "Requests passed to the model.", registry
        )
        rows = PlainCounter("fourways_inference_rows", "Rows passed to the model.", registry)
        failures = Counter(
            "fourways_inference_failures", "Requests that the model failed on.", registry=registry
        )
        rejected = Counter(
            "fourways_inference_rejected",
            "Requests answered 503 because the model had no time for them.",
            registry=registry,
        )
        model_faults = Counter(
            "fourways_model_bad_rows",
            "Rows whose prediction breaks the contract: NaN, infinite, out of range.",
            registry=registry,
        )
        feature_faults = Counter(
            "fourways_feature_faults",
            "Requests that failed because the feature database was silent, or its value invalid.",
            registry=registry,
        )
        timed_out = Counter(
            "fourways_inference_timeouts",
            "Requests rejected because their response took too long.",
            registry=registry,
        )
        batch_requests = PlainHistogram(
            "fourways_batch_requests", "Requests scored together.", _SIZES, registry
        )
        batch_rows = PlainHistogram(
            "fourways_batch_rows", "Rows scored together.", _SIZES, registry
        )
        seconds = PlainHistogram(
            "fourways_model_seconds",
            "From a batch's tensors to its predictions: checks, features, model.",
            LATENCY_BUCKETS,
            registry,
        )
        queued = PlainHistogram(
            "fourways_queue_seconds",
            "From the arrival of a batch's first request until the batch begins.",
            LATENCY_BUCKETS,
            registry,
        )
        self.waiting = Gauge(
            "fourways_requests_waiting",
            "Requests whose batch has not begun.",
            registry=registry,
        )
        self.running = Gauge(
            "fourways_requests_running",
            "Requests whose batch is being scored.",
            registry=registry,
        )
        self.failed = failures.inc
        self.model_faults = model_faults.inc
        self.feature_faults = feature_faults.inc
        self.rejected = rejected.inc
        self.timed_out = timed_out.inc
        self.scored = seconds.observe
        self.queued = queued.observe
        self._requests, self._rows = requests.inc, rows.inc
        self._batch_requests, self._batch_rows = batch_requests.observe, batch_rows.observe
        ready = self._ready = Gauge(
            "fourways_model_ready", "1 once the model is ready.", registry=registry
        )
        ready.set(0)

    def batch(self, requests: int, rows: int) -> None:
        """Record the start of a batch."""
        self._requests(requests)
        self._rows(rows)
        self._batch_requests(requests)
        self._batch_rows(rows)

    def ready(self) -> None:
        """Record that the model is ready."""
        self._ready.set(1)
