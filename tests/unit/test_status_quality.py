"""What workers tell of the quality of predictions becomes the status and the gauges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fourways_api import QualityStatus, check, parse
from fourways_api.worker_faults import WorkerFaults
from fourways_operator.facts import Json
from fourways_operator.metrics import Metrics
from fourways_operator.work_queue import Key
from fourways_operator.worker_faults import MAX_ASKED, urls_of_workers
from tests.kit.mode_facts import deployment, facts, planned, pod, status

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


# ---------------------------------------------------------------- real-time


def realtime(**settings: Any) -> Json:
    return deployment("realtime", quality=QUALITY, realtime={"minReplicas": 1, **settings})


def quality_pod(document: Json, **state: Any) -> Json:
    planned_one = next(o for o in planned(document) if o["kind"] == "Deployment")
    made = pod(document, ready=not state, name="quality", state=state or None)
    made["metadata"]["labels"] = planned_one["spec"]["template"]["metadata"]["labels"]
    return {**made, "spec": planned_one["spec"]["template"]["spec"]}


def test_a_quality_worker_tells_the_status_and_is_no_model_server() -> None:
    document = realtime()
    check(parse(document))
    told = {"quality": WorkerFaults(quality=measured("2026-03-01T11:00:00Z"))}
    alone = replace(facts(document, quality_pod(document)), worker_faults=told)
    found = status(alone)
    assert found["quality"] == told["quality"].quality.to_json()  # type: ignore[union-attr]
    ready = next(c for c in found["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "False"
    both = facts(document, pod(document, ready=True), quality_pod(document))
    assert "quality" not in status(both)
    known = replace(both, deployment=document | {"status": found})
    assert status(known)["quality"] == found["quality"]


def test_a_quality_worker_that_does_not_start_is_named_and_degrades_nothing() -> None:
    document = realtime()
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    found = facts(document, pod(document, ready=True), quality_pod(document, **ended))
    worker = next(o for o in planned(document) if o["kind"] == "Deployment")
    made = {**worker["metadata"], "creationTimestamp": "2026-03-01T11:00:00Z"}
    others = [o for o in found.children if o["metadata"]["name"] != made["name"]]
    found = replace(found, children=(*others, {**worker, "metadata": made}))
    told = status(found)
    assert told["quality"]["labels"] == 0
    assert told["quality"]["measuredAt"] == "2026-03-01T11:00:00Z"
    assert told["quality"]["message"].startswith("the quality worker does not start: ")
    degraded = next(c for c in told["conditions"] if c["type"] == "Degraded")
    assert degraded["status"] == "False"


def test_a_quality_worker_is_asked_also_beside_many_silent_model_servers() -> None:
    document = realtime()

    def live(made: Json, name: str) -> Json:
        made["metadata"]["name"] = name
        made["status"] |= {"podIP": "10.0.0.7", "phase": "Running"}
        return made

    servers = [live(pod(document, ready=True), f"a{at}") for at in range(3)]
    starting = [live(pod(document), f"b{at}") for at in range(20)]
    quality = live(quality_pod(document), "zz")
    assert list(urls_of_workers(parse(document), [*servers, quality])) == ["zz"]
    asked = urls_of_workers(parse(document), [*servers, *starting, quality])
    assert len(asked) == MAX_ASKED
    assert "zz" in asked


def test_only_with_quality_a_model_server_may_write_to_the_store() -> None:
    plain, compared = planned(deployment("realtime")), planned(realtime())

    def server(objects: tuple[Json, ...]) -> tuple[set[str], set[int]]:
        service = next(o for o in objects if o["kind"] == "InferenceService")
        policy = next(o for o in objects if o["kind"] == "NetworkPolicy")
        secrets = {
            volume["secret"]["secretName"]
            for volume in service["spec"]["predictor"]["volumes"]
            if "secret" in volume
        }
        ports = {p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]}
        return secrets, ports

    assert server(plain) == (set(), {53})
    assert server(compared) == ({"fourways-store"}, {53, 5432})
    # What only the quality worker needs to know restarts no model server.
    others = {**QUALITY, "interval": "1h", "window": "24h", "metrics": ["MAE"]}
    again = planned(deployment("realtime", quality=others, realtime={"minReplicas": 1}))
    assert again[: len(plain)] == compared[: len(plain)]
    assert again[-1] != compared[-1]
    assert [o["metadata"]["name"] for o in compared[len(plain) :]] == ["m-quality"] * 3
    # Neither of the two policies, nor the Deployment, selects the other's pods.
    selectors = [o["spec"]["podSelector"] for o in compared if o["kind"] == "NetworkPolicy"]
    server_labels, quality_labels = (each["matchLabels"] for each in selectors)
    assert not server_labels.items() <= quality_pod(realtime())["metadata"]["labels"].items()
    assert not quality_labels.items() <= pod(realtime())["metadata"]["labels"].items()
