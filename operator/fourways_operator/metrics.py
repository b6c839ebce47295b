"""The operator's own metrics, in the Prometheus text format.

It owns names, labels and buckets, and must not hold state that decisions depend on. The gauges of a
deployment have its namespace and name as labels, so there are as many series as deployments, and
they are removed together. Tenants choose no other label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fourways_api.reasons import Reason

from .facts import Json
from .work_queue import Key, Result

_OF_DEPLOYMENT = {
    "fourways_deployment_ready": "1 while the deployment serves predictions (condition Ready).",
    "fourways_deployment_stale": (
        "1 while it serves a state older than its spec, or a run is overdue."
    ),
    "fourways_deployment_failed": (
        "1 while something is wrong with it (condition Degraded or Stalled)."
    ),
    "fourways_deployment_drifted": (
        "1 while its records differ from those of the training (condition Drifted)."
    ),
}
"""Gauges of each deployment."""


class Metrics:
    """Metrics of one operator, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Counter(
            "fourways_reconciles", "Reconciles by result.", ["result"], registry=self.registry
        )
        self._retries = Counter(
            "fourways_retries", "Reconciles that will be retried.", registry=self.registry
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
        self._of_deployment = {
            name: Gauge(name, text, ["namespace", "name", "mode"], registry=self.registry)
            for name, text in _OF_DEPLOYMENT.items()
        }
        self._quality = Gauge(
            "fourways_deployment_quality",
            "Metric of predictions against the labels known so far (not mode edge).",
            ["namespace", "name", "metric"],
            registry=self.registry,
        )
        self._labels = Gauge(
            "fourways_deployment_labels",
            "Labels that the metrics of fourways_deployment_quality are based on.",
            ["namespace", "name"],
            registry=self.registry,
        )
        self._measured: dict[Key, tuple[str, ...]] = {}
        self._states: dict[Key, tuple[str, str]] = {}
        self._last_runs: dict[Key, Json] = {}

    def measure(
        self, depth: Callable[[], float], delayed: Callable[[], float], age: Callable[[], float]
    ) -> None:
        """Register gauges that call these functions when they are scraped."""
        for name, text, function in (
            ("fourways_queue_depth", "Keys that wait for a worker.", depth),
            ("fourways_queue_delayed", "Keys that wait for a retry.", delayed),
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
        """Set the gauges from a deployment's status; None when it is deleted."""
        if (before := self._states.pop(key, None)) is not None:
            self._deployments.labels(*before).dec()
            for gauge in self._of_deployment.values():
                gauge.remove(key.namespace, key.name, before[0])
        if status is not None:
            found = {c["type"]: c for c in status["conditions"]}
            mode = status.get("mode") or "none"
            state = (mode, found["Ready"]["status"] if "Ready" in found else "Unknown")
            self._states[key] = state
            self._deployments.labels(*state).inc()
            for name, value in _figures(found, status.get("observedGeneration", 0)).items():
                self._of_deployment[name].labels(key.namespace, key.name, mode).set(value)
        self._show_quality(key, (status or {}).get("quality"))
        self._count_run(key, (status or {}).get("lastRun"))

    def _show_quality(self, key: Key, quality: Json | None) -> None:
        whose = (key.namespace, key.name)
        values = {each["name"]: each["value"] for each in (quality or {}).get("metrics", ())}
        before = self._measured.pop(key, None)
        for gone in set(before or ()) - values.keys():
            self._quality.remove(*whose, gone)
        if quality is None:
            if before is not None:
                self._labels.remove(*whose)
            return
        self._measured[key] = tuple(values)
        self._labels.labels(*whose).set(quality["labels"])
        for name, value in values.items():
            self._quality.labels(*whose, name).set(value)

    def _count_run(self, key: Key, run: Json | None) -> None:
        before = self._last_runs.pop(key, None)
        if run is None:
            return
        self._last_runs[key] = run
        # The previous operator process counted the runs that had ended before this one started.
        ended = run["outcome"] != "Running"
        if ended and before is not None and _attempt(before) != _attempt(run):
            self._runs.labels(run["outcome"]).inc()

    def forget_all_but(self, keys: frozenset[Key]) -> None:
        """Forget deployments that were deleted without a watch event."""
        for key in self._states.keys() - keys:
            self.seen(key, None)


def _figures(conditions: Mapping[str, Json], generation: int) -> dict[str, bool]:
    """Return the value of each gauge of a deployment."""
    ready = conditions.get("Ready", {})
    degraded = conditions.get("Degraded", {})
    serves_spec = ready.get("observedGeneration", 0) == generation
    return {
        "fourways_deployment_ready": ready.get("status") == "True",
        "fourways_deployment_stale": ready.get("status") == "True"
        and (not serves_spec or degraded.get("reason") == Reason.ScheduleOverdue),
        "fourways_deployment_drifted": conditions.get("Drifted", {}).get("status") == "True",
        "fourways_deployment_failed": degraded.get("status") == "True" or "Stalled" in conditions,
    }


def _attempt(run: Json) -> tuple[str, str | None, str]:
    return run["name"], run.get("job"), run["outcome"]
