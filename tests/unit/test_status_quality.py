"""What stream workers tell of the quality of predictions becomes the status and the gauges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fourways_api import QualityStatus, check, parse
from fourways_api.worker_faults import WorkerFaults
from fourways_operator.facts import Json
from fourways_operator.metrics import Metrics
from fourways_operator.work_queue import Key
from tests.kit.mode_facts import deployment, facts, pod, status

QUALITY = {
    "truth": {"uri": "pvc://data/truth.parquet"},
    "label": "happened",
    "time": "at",
    "output": "score",
    "metrics": ["AUC"],
}


def measured(at: str, auc: float | None = 0.8, **more: Any) -> QualityStatus:
    metrics = [] if auc is None else [{"name": "AUC", "value": auc}]
    document = {"output": "score", "labels": 400, "metrics": metrics, "measuredAt": at, **more}
    return QualityStatus.model_validate(document)


def stream(**spec: Any) -> Json:
    return deployment("streaming", quality=QUALITY, **spec)


def test_the_latest_comparison_of_a_worker_is_the_status() -> None:
    document = stream()
    check(parse(document))
    pods = pod(document, ready=True), pod(document, ready=True, name="q")
    told = {
        "p": WorkerFaults(quality=measured("2026-03-01T11:00:00Z", 0.7)),
        "q": WorkerFaults(quality=measured("2026-03-01T11:05:00Z", 0.9)),
    }
    both = replace(facts(document, *pods), worker_faults=told)
    found = status(both)["quality"]
    assert found == told["q"].quality.to_json()  # type: ignore[union-attr]
    # A worker that starts knows nothing yet, and one that goes takes its comparison along.
    later = replace(
        facts(document | {"status": status(both)}, pods[0]), worker_faults={"p": WorkerFaults()}
    )
    assert status(later)["quality"] == found
    assert "quality" not in status(replace(later, deployment=deployment("streaming")))


def test_a_comparison_that_failed_keeps_the_gauges_of_the_last_one() -> None:
    document, key = stream(), Key("demo", "m")
    failed = measured("2026-03-01T11:00:00Z", 0.7, message="not measured: no such file")
    known = replace(
        facts(document, pod(document, ready=True)),
        worker_faults={"p": WorkerFaults(quality=failed)},
    )
    assert status(known)["quality"]["message"] == "not measured: no such file"
    metrics = Metrics()
    metrics.seen(key, status(known))
    labels = {"namespace": "demo", "name": "m", "metric": "AUC"}
    assert metrics.registry.get_sample_value("fourways_deployment_quality", labels) == 0.7
