"""The operator's own metrics, in the Prometheus text format.

Owns names, labels and buckets. It must not hold anything decisions are made from, nor a label
whose values a tenant chooses without bound: no label here is a name of a deployment.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .facts import Json
from .work_queue import Key, Result


class Metrics:
    """Counters of one operator, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Counter(
            "fourways_reconciles", "Reconciles by result.", ["result"], registry=self.registry
        )
        self._retries = Counter(
            "fourways_retries", "Reconciles to be tried again.", registry=self.registry
        )
        self._seconds = Histogram(
            "fourways_reconcile_seconds",
            "Time a reconcile took.",
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
        )
        self._writes = Counter(
            "fourways_api_writes",
            "Writes to the API server.",
            ["verb", "kind"],
            registry=self.registry,
        )
        self._deployments = Gauge(
            "fourways_deployments",
            "ModelDeployments by mode and readiness.",
            ["mode", "ready"],
            registry=self.registry,
        )
        self._runs = Counter(
            "fourways_runs",
            "Batch runs that ended, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self._states: dict[Key, tuple[str, str]] = {}
        self._last_runs: dict[Key, Json] = {}

    def measure(
        self, depth: Callable[[], float], delayed: Callable[[], float], age: Callable[[], float]
    ) -> None:
        """Have gauges read from these functions when they are scraped."""
        for name, text, function in (
            ("fourways_queue_depth", "Keys that wait for a worker.", depth),
            ("fourways_queue_delayed", "Keys that wait for their next try.", delayed),
            ("fourways_relist_age_seconds", "Age of the last finished relist.", age),
        ):
            Gauge(name, text, registry=self.registry).set_function(function)

    def reconciled(self, key: Key, result: Result, seconds: float) -> None:
        """Count a reconcile."""
        self._reconciles.labels(result).inc()
        self._seconds.observe(seconds)
        if result != "done":
            self._retries.inc()

    def wrote(self, verb: str, kind: str) -> None:
        """Count a write."""
        self._writes.labels(verb, kind).inc()

    def seen(self, key: Key, status: Json | None) -> None:
        """Remember what a deployment's status says; None when it is gone."""
        if (before := self._states.pop(key, None)) is not None:
            self._deployments.labels(*before).dec()
        if status is not None:
            ready = next((c["status"] for c in status["conditions"] if c["type"] == "Ready"), None)
            state = (status.get("mode") or "none", ready or "Unknown")
            self._states[key] = state
            self._deployments.labels(*state).inc()
        self._count_run(key, (status or {}).get("lastRun"))

    def _count_run(self, key: Key, run: Json | None) -> None:
        before = self._last_runs.pop(key, None)
        if run is None:
            return
        self._last_runs[key] = run
        # What had ended before this operator looked was counted by the one before it.
        ended = run["outcome"] != "Running"
        if ended and before is not None and _attempt(before) != _attempt(run):
            self._runs.labels(run["outcome"]).inc()

    def forget_all_but(self, keys: frozenset[Key]) -> None:
        """Forget deployments that are gone without anyone having seen them go."""
        for key in self._states.keys() - keys:
            self.seen(key, None)


def _attempt(run: Json) -> tuple[str, str | None, str]:
    return run["name"], run.get("job"), run["outcome"]
